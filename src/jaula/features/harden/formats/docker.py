"""A profile as a shell script that runs ``docker run``. Pure."""

from __future__ import annotations

from shlex import quote

from jaula.features.harden.formats import needs
from jaula.spec.confinement_profile import Profile


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
    for name, values in needs.settings(profile).items():
        for value in values:
            lines.append(f"    --{name} {quote(value)} \\" if value else f"    --{name} \\")
    if profile.seccomp.syscalls:
        lines.append(f'    --security-opt "seccomp=$(dirname "$0")/"{quote(file)} \\')
    lines.append('    "$@"')
    return "\n".join(lines) + "\n"
