"""The bounds of a sandboxed process, and the ids that it has. Pure."""

from __future__ import annotations

import msgspec

NOBODY = 65534
"""The user and group that own no file: nobody(5), the kernel's default overflow id."""

GROUPS = ("files", "network", "threads")
"""Groups of system calls that a process may have beside computing and its own descriptors."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandboxed process may use. The time is processor time of its whole life."""

    memory: int = 256 << 20  # bytes of address space beyond the interpreter with its modules
    processor: int = 20  # seconds; 0: without a limit
    patience: float = 120.0  # seconds of the clock for one call
    result: int = 16 << 20  # bytes of the answer to one call
    descriptors: int = 64


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandboxed process may reach; nothing by default.

    ``read`` and ``write`` are paths, beneath which Landlock allows files; they need the group
    ``files``. ``calls`` has groups of system calls, and names of single ones.
    """

    calls: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


def worker_ids(uid_map: str, gid_map: str, euid: int, egid: int) -> tuple[int, int]:
    """Return the ids for a sandboxed process: nobody's where they are mapped.

    Otherwise the highest mapped id. A process that is not root keeps its own.
    """
    if euid != 0:
        return euid, egid
    return _highest(uid_map), _highest(gid_map)


def _highest(id_map: str) -> int:
    """Return the overflow id if a map of proc_pid_uid_map(5) has it, else its highest id."""
    highest = 0
    for line in id_map.splitlines():
        first, _, count = map(int, line.split())
        if first <= NOBODY < first + count:
            return NOBODY
        highest = max(highest, first + count - 1)
    return highest
