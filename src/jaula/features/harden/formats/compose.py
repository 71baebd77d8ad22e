"""A profile as a service of a compose file. Pure.

Source: the Compose Specification. Every text is a double-quoted YAML scalar. ``$`` is
doubled, since compose interpolates variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jaula.features.harden.formats import needs
from jaula.spec.profile import Profile
from jaula.spec.quoted_string import quoted


def scalar(text: str) -> str:
    """Return a YAML scalar of a text."""
    return quoted(text.replace("$", "$$"))


def render(profile: Profile) -> str:
    """Return the file.

    :raises InvalidRequest: when a value of the profile is not valid.
    """
    profile = needs.checked(profile)
    cannot = (needs.PROGRAM_FILES, needs.DESTINATIONS, needs.MASKED)
    title = f"The least that {profile.name} needs, as a service."
    return "\n".join((*needs.comments(profile, title, cannot), *_service(profile))) + "\n"


def _service(profile: Profile) -> Iterator[str]:
    files, limits, network = profile.files, profile.limits, profile.network
    names = needs.volume_names(profile)
    if profile.seccomp.syscalls:
        file = needs.seccomp_file(profile)
        yield f"# {file} is written by: jaula harden --profile FILE --format seccomp"
    yield "services:"
    yield f"  {scalar(profile.name)}:"
    yield f"    image: {scalar(profile.image or profile.name)}"
    if profile.process.user:
        yield f"    user: {scalar(profile.process.user)}"
    yield "    cap_drop: [ALL]"
    yield from _list("cap_add", needs.capabilities(profile))
    options = ["no-new-privileges:true"] if profile.process.no_new_privileges else []
    if profile.seccomp.syscalls:
        options.append(f"seccomp:{needs.seccomp_file(profile)}")
    yield from _list("security_opt", options)
    yield from _list("devices", profile.devices)
    if files.read_only_root:
        yield "    read_only: true"
    yield from _list(
        "tmpfs",
        (f"{path}:{options}" if options else path for path, options in files.tmpfs.items()),
    )
    if files.volumes:
        yield "    volumes:"
        for path in files.volumes:
            yield "      - type: volume"
            yield f"        source: {scalar(names[path])}"
            yield f"        target: {scalar(path)}"
    if network.mode:
        yield f"    network_mode: {scalar(network.mode)}"
    else:
        yield from _list(
            "expose", (f"{port}/{protocol}" for protocol, port in needs.ports(profile))
        )
    if limits.pids:
        yield f"    pids_limit: {limits.pids}"
    if limits.memory:
        yield f"    mem_limit: {limits.memory}"
        yield f"    memswap_limit: {limits.memory}"
    if limits.cpus:
        yield f"    cpus: {needs.decimal(limits.cpus)}"
    if files.volumes:
        yield "volumes:"
        yield from (f"  {scalar(names[path])}:" for path in files.volumes)


def _list(key: str, items: Iterable[str]) -> Iterator[str]:
    items = tuple(items)
    if items:
        yield f"    {key}:"
        yield from (f"      - {scalar(item)}" for item in items)
