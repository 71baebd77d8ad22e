"""Shared by the forms of a profile: volumes, ports, and what a form cannot express. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jaula.harden.toml import comment
from jaula.spec.profile import Profile

PROGRAM_FILES = "files that it may read and execute"
DESTINATIONS = "destinations that it may connect to"
MASKED = "masked paths"
PIDS = "the number of processes"


def volume_name(profile: Profile, path: str) -> str:
    """Return the name of the volume for a path of the container."""
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", f"{profile.name}{path}").strip("-")[:128]


def seccomp_file(profile: Profile) -> str:
    """Return the name of the seccomp profile's file, beside the document that names it."""
    return f"{profile.name}.seccomp.json"


def ports(profile: Profile) -> tuple[tuple[str, int], ...]:
    """Return protocol and number of the ports that it listens on, without selected ones."""
    found = []
    for item in profile.network.listen or ():
        protocol, _, number = item.partition(":")
        if number.isdigit() and 0 < int(number) < 65536 and protocol in ("tcp", "udp"):
            found.append((protocol, int(number)))
    return tuple(found)


def comments(profile: Profile, title: str, cannot: tuple[str, ...]) -> Iterator[str]:
    """Yield the comments of a form: its title, what it cannot express, and the notes."""
    yield f"# {comment(title)}"
    if lost := [each for each in cannot if _has(profile, each)]:
        yield "# This form cannot express:"
        yield from (f"#   {each}" for each in lost)
    if profile.notes:
        yield "# Notes of the profile:"
        yield from (f"#   {comment(note)}" for note in profile.notes)


def _has(profile: Profile, need: str) -> bool:
    return {
        PROGRAM_FILES: bool(profile.files.read or profile.files.execute),
        DESTINATIONS: profile.network.egress is not None and profile.network.mode != "none",
        MASKED: bool(profile.files.masked),
        PIDS: bool(profile.limits.pids),
    }.get(need, True)
