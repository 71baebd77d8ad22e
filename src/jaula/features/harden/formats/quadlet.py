"""A profile as a ``.container`` unit of podman (quadlet). Pure.

Source: podman-systemd.unit(5), systemd.syntax(7), systemd.service(5). ``%`` and ``$`` are doubled,
since they start specifiers and variables of systemd.

Facts about quadlet: it removes the quotes of some values and keeps those of others. So a path with
a space, a quote, a backslash or a control character cannot be in a unit; a comment names it.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.harden.formats import needs
from jaula.features.harden.toml import comment
from jaula.spec.profile import Profile

SECCOMP_DIRECTORY = "/etc/containers/seccomp"
_LOW_PORTS = 1024


def setting(key: str, value: str) -> str:
    """Return a line of a unit, a comment if the value cannot be in one."""
    if not value.isprintable() or set(value) & set(" \"'\\"):
        return f"# Not in this unit, since it has special characters: {comment(f'{key}={value}')}"
    return f"{key}={value.replace('%', '%%').replace('$', '$$')}"


def _image(profile: Profile) -> str:
    """Return the image, with a tag if it would be the name of a unit."""
    image = profile.image or profile.name
    return f"{image}:latest" if image.endswith((".image", ".build")) else image


def render(profile: Profile) -> str:
    """Return the unit.

    :raises InvalidRequest: when a value of the profile is not valid.
    """
    profile = needs.checked(profile)
    cannot = (needs.PROGRAM_FILES, needs.DESTINATIONS)
    title = f"The least that {profile.name} needs, as a unit of podman."
    return "\n".join((*needs.comments(profile, title, cannot), *_unit(profile))) + "\n"


def _unit(profile: Profile) -> Iterator[str]:
    files, limits, network = profile.files, profile.limits, profile.network
    if profile.seccomp.syscalls:
        file = f"{SECCOMP_DIRECTORY}/{needs.seccomp_file(profile)}"
        yield f"# {file} is written by: jaula harden --profile FILE --format seccomp"
    for protocol, port in needs.ports(profile):
        yield f"# It listens on {protocol} port {port}: publish it with PublishPort=."
    yield "[Unit]"
    yield f"Description={profile.name}"
    yield ""
    yield "[Container]"
    yield setting("Image", _image(profile))
    yield f"ContainerName={profile.name}"
    if profile.process.user:
        user, _, group = profile.process.user.partition(":")
        yield setting("User", user)
        if group:
            yield setting("Group", group)
    yield f"NoNewPrivileges={'true' if profile.process.no_new_privileges else 'false'}"
    yield "DropCapability=all"
    yield from (f"AddCapability=CAP_{name}" for name in needs.capabilities(profile))
    if profile.seccomp.syscalls:
        yield setting("SeccompProfile", file)
    yield from (setting("AddDevice", device) for device in profile.devices)
    if files.read_only_root:
        yield "ReadOnly=true"
        yield "ReadOnlyTmpfs=false"
    for path, options in files.tmpfs.items():
        yield setting("Tmpfs", f"{path}:{options}" if options else path)
    for path, name in needs.volume_names(profile).items():
        yield setting("Volume", f"{name}:{path}")
    masked = {path: setting("Mask", path) for path in files.masked}  # a list has colons
    usable = [path for path, line in masked.items() if line[0] != "#" and ":" not in path]
    if usable:
        yield setting("Mask", ":".join(usable))
    for path in (each for each in masked if each not in usable):
        yield f"# Not in this unit, since it has special characters: {comment(f'Mask={path}')}"
    if network.mode:
        yield f"Network={network.mode}"
    low = any(port < _LOW_PORTS for _, port in needs.ports(profile))
    if low and "NET_BIND_SERVICE" not in needs.capabilities(profile):
        yield "Sysctl=net.ipv4.ip_unprivileged_port_start=0"
    if limits.pids:
        yield f"PidsLimit={limits.pids}"
    if limits.memory:
        yield f"PodmanArgs=--memory={limits.memory} --memory-swap={limits.memory}"
    if limits.cpus:
        yield f"PodmanArgs=--cpus={needs.decimal(limits.cpus)}"
    yield ""
    yield "[Install]"
    yield "WantedBy=multi-user.target"
