"""The difference of two profiles: what one allows and the other does not. Pure.

Evidence, sources and notes are no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jaula.spec.confinement_profile import Profile


class Change(NamedTuple):
    """An item that only one profile has; ``sign`` is + for the second one."""

    sign: str
    section: str
    item: str


def compare(before: Profile, after: Profile) -> tuple[Change, ...]:
    """Return what was removed and added, by section."""
    first, second = dict(_sections(before)), dict(_sections(after))
    changes = []
    for section in dict.fromkeys((*first, *second)):
        old, new = first.get(section, frozenset()), second.get(section, frozenset())
        changes += [Change("-", section, item) for item in sorted(old - new)]
        changes += [Change("+", section, item) for item in sorted(new - old)]
    return tuple(changes)


def _sections(profile: Profile) -> Iterator[tuple[str, frozenset[str]]]:
    files, network, limits = profile.files, profile.network, profile.limits
    yield "image", frozenset({profile.image})
    yield "process.user", frozenset({profile.process.user or "(of the image)"})
    yield (
        "process.no-new-privileges",
        frozenset({"true" if profile.process.no_new_privileges else "false"}),
    )
    yield "capabilities", frozenset(profile.capabilities)
    yield "devices", frozenset(profile.devices)
    yield "files.read-only-root", frozenset({"true" if files.read_only_root else "false"})
    yield "files.tmpfs", frozenset(f"{path} {options}" for path, options in files.tmpfs.items())
    yield "files.volumes", frozenset(files.volumes)
    yield "files.read", frozenset(files.read or ("(any)",))
    yield "files.write", frozenset(files.write)
    yield "files.execute", frozenset(files.execute or ("(any)",))
    yield "files.masked", frozenset(files.masked)
    yield "network.mode", frozenset({network.mode or "(of the request)"})
    yield (
        "network.listen",
        frozenset({"(any)"} if network.listen is None else network.listen),
    )
    yield (
        "network.egress",
        frozenset({"(any)"} if network.egress is None else network.egress),
    )
    yield "limits.pids", frozenset({str(limits.pids or "(default)")})
    yield "limits.memory", frozenset({str(limits.memory or "(default)")})
    yield "limits.cpus", frozenset({str(limits.cpus or "(default)")})
    for architecture, names in sorted(profile.seccomp.syscalls.items()):
        yield f"seccomp.syscalls.{architecture}", frozenset(names)
    for architecture, names in sorted(profile.seccomp.unavailable.items()):
        yield f"seccomp.unavailable.{architecture}", frozenset(names)
