"""A profile as a ``.container`` unit of podman (quadlet). Pure.

Source: podman-systemd.unit(5), systemd.syntax(7), systemd.service(5). ``%`` and ``$`` are doubled,
since they start specifiers and variables of systemd.

Facts about quadlet: it removes the quotes of some values and keeps those of others. So a path with
a space, a quote, a backslash or a control character cannot be in a unit; a comment names it.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.harden.formats import needs
from jaula.features.harden.profile_toml import comment
from jaula.spec.confinement_profile import Profile
from jaula.spec.run_options import BY_NAME

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
    files = profile.files
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
    settings = needs.settings(profile)
    if profile.process.user:
        user, _, group = profile.process.user.partition(":")
        yield setting(BY_NAME["user"].quadlet, user)
        if group:
            yield setting("Group", group)
    yield f"NoNewPrivileges={'true' if profile.process.no_new_privileges else 'false'}"
    yield f"{BY_NAME['cap-drop'].quadlet}=all"
    capabilities = settings.get("cap-add", ())
    yield from (f"{BY_NAME['cap-add'].quadlet}=CAP_{name}" for name in capabilities)
    if profile.seccomp.syscalls:
        yield setting("SeccompProfile", file)
    yield from (setting(BY_NAME["device"].quadlet, device) for device in profile.devices)
    if files.read_only_root:
        yield f"{BY_NAME['read-only'].quadlet}=true"
        yield "ReadOnlyTmpfs=false"
    for value in settings.get("tmpfs", ()):
        yield setting(BY_NAME["tmpfs"].quadlet, value)
    for path, name in needs.volume_names(profile).items():
        yield setting(BY_NAME["volume"].quadlet, f"{name}:{path}")
    masked = {path: setting("Mask", path) for path in files.masked}  # a list has colons
    usable = [path for path, line in masked.items() if line[0] != "#" and ":" not in path]
    if usable:
        yield setting("Mask", ":".join(usable))
    for path in (each for each in masked if each not in usable):
        yield f"# Not in this unit, since it has special characters: {comment(f'Mask={path}')}"
    if profile.network.mode:
        yield f"{BY_NAME['network'].quadlet}={profile.network.mode}"
    low = any(port < _LOW_PORTS for _, port in needs.ports(profile))
    if low and "NET_BIND_SERVICE" not in capabilities:
        yield f"{BY_NAME['sysctl'].quadlet}=net.ipv4.ip_unprivileged_port_start=0"
    if profile.limits.pids:
        yield f"{BY_NAME['pids-limit'].quadlet}={profile.limits.pids}"
    for names in (("memory", "memory-swap"), ("cpus",)):  # podman 5.4 has no keys for them
        if arguments := [f"--{n}={v}" for n in names for v in settings.get(n, ())]:
            yield f"PodmanArgs={' '.join(arguments)}"
    yield ""
    yield "[Install]"
    yield "WantedBy=multi-user.target"
