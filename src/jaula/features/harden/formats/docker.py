"""A profile as a shell script that runs ``docker run``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from jaula.features.harden.formats import needs
from jaula.spec.csv_field import quoted
from jaula.spec.profile import Profile


def flags(profile: Profile) -> Iterator[tuple[str, str]]:
    """Yield flags of docker run with their values, '' for a flag without one."""
    if profile.process.user:
        yield "--user", profile.process.user
    if profile.process.no_new_privileges:
        yield "--security-opt", "no-new-privileges"
    yield "--cap-drop", "ALL"
    for name in needs.capabilities(profile):
        yield "--cap-add", name
    for device in profile.devices:
        yield "--device", device
    if profile.files.read_only_root:
        yield "--read-only", ""
    for path, options in profile.files.tmpfs.items():
        yield "--tmpfs", f"{path}:{options}" if options else path
    for path, name in needs.volume_names(profile).items():
        yield "--mount", f"type=volume,src={name},{quoted(f'dst={path}')}"
    if profile.network.mode:
        yield "--network", profile.network.mode
    if profile.limits.pids:
        yield "--pids-limit", str(profile.limits.pids)
    if profile.limits.memory:
        yield "--memory", str(profile.limits.memory)
        yield "--memory-swap", str(profile.limits.memory)
    if profile.limits.cpus:
        yield "--cpus", needs.decimal(profile.limits.cpus)


def render(profile: Profile) -> str:
    """Return the script. Its arguments are further flags, the image, and its command.

    :raises InvalidRequest: when a value of the profile is not valid.
    """
    profile = needs.checked(profile)
    file = needs.seccomp_file(profile)
    cannot = (needs.PROGRAM_FILES, needs.DESTINATIONS, needs.MASKED)
    lines = ["#!/bin/sh"]
    lines += needs.comments(profile, f"Run {profile.name} with the least that it needs.", cannot)
    lines.append("# Usage: FILE [FLAG...] IMAGE [COMMAND...]")
    if profile.seccomp.syscalls:
        lines.append(f"# {file} is written by: jaula harden --profile FILE --format seccomp")
    for protocol, port in needs.ports(profile):
        lines.append(f"# It listens on {protocol} port {port}: publish it with --publish.")
    lines.append("exec docker run \\")
    for flag, value in flags(profile):
        lines.append(f"    {flag} {quote(value)} \\" if value else f"    {flag} \\")
    if profile.seccomp.syscalls:
        lines.append(f'    --security-opt "seccomp=$(dirname "$0")/"{quote(file)} \\')
    lines.append('    "$@"')
    return "\n".join(lines) + "\n"
