"""A process that was made: what its maker has of it."""

from __future__ import annotations

import msgspec

from jaula.spec.runtime import Linux


class ProcessHandle(msgspec.Struct, frozen=True):
    """A process that runs. Descriptors are -1 where there is none; they are the maker's ends."""

    pid: int
    master: int = -1
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    cgroup: str = ""
    memory_limit: int = 0  # bytes, 0: none
    warnings: tuple[str, ...] = ()  # limits that are not in force, and why


def memory_limit(linux: Linux) -> int:
    """The limit that a spec sets, in bytes; 0 where it sets none."""
    memory = linux.resources.memory if linux.resources else None
    return memory.limit if memory and memory.limit and memory.limit > 0 else 0
