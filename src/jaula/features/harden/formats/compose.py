"""A profile as a service of a compose file. Pure.

Source: the Compose Specification. Every text is a double-quoted YAML scalar. ``$`` is
doubled, since compose interpolates variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jaula.features.harden.formats import needs
from jaula.spec.confinement_profile import Profile
from jaula.spec.quoted_string import quoted
from jaula.spec.run_options import BY_NAME


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
    files, names = profile.files, needs.volume_names(profile)
    settings = needs.settings(profile)
    options = [f"{option}:true" for option in settings.pop("security-opt", ())]
    if profile.seccomp.syscalls:
        file = needs.seccomp_file(profile)
        options.append(f"seccomp:{file}")
        yield f"# {file} is written by: jaula harden --profile FILE --format seccomp"
    yield "services:"
    yield f"  {scalar(profile.name)}:"
    yield f"    image: {scalar(profile.image or profile.name)}"
    yield from _settings(settings, "user")
    yield f"    {BY_NAME['cap-drop'].compose}: [ALL]"
    yield from _settings(settings, "cap-add")
    yield from _list(BY_NAME["security-opt"].compose, options)
    yield from _settings(settings, "device", "read-only", "tmpfs")
    if files.volumes:
        yield f"    {BY_NAME['mount'].compose}:"
        for path in files.volumes:
            yield "      - type: volume"
            yield f"        source: {scalar(names[path])}"
            yield f"        target: {scalar(path)}"
    yield from _settings(settings, "network")
    if not profile.network.mode:
        ports = (f"{port}/{protocol}" for protocol, port in needs.ports(profile))
        yield from _list(BY_NAME["expose"].compose, ports)
    yield from _settings(settings, "pids-limit", "memory", "memory-swap", "cpus")
    if files.volumes:
        yield "volumes:"
        yield from (f"  {scalar(names[path])}:" for path in files.volumes)


def _settings(settings: Mapping[str, tuple[str, ...]], *names: str) -> Iterator[str]:
    """Yield the keys of the service for options, by their kind."""
    for name in names:
        option, values = BY_NAME[name], settings.get(name, ())
        if option.kind == "list" and option.syntax != "network":
            yield from _list(option.compose, values)
        elif values:
            is_text = option.kind in ("string", "list")
            value = "true" if option.kind == "bool" else scalar(values[0]) if is_text else values[0]
            yield f"    {option.compose}: {value}"


def _list(key: str, items: Iterable[str]) -> Iterator[str]:
    items = tuple(items)
    if items:
        yield f"    {key}:"
        yield from (f"      - {scalar(item)}" for item in items)
