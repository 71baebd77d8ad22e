"""A process that was made: what its maker has of it."""

from __future__ import annotations

import msgspec


class Born(msgspec.Struct, frozen=True):
    """A process that runs. Descriptors are -1 where there is none; they are the maker's ends."""

    pid: int
    master: int = -1
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    cgroup: str = ""
    memory_limit: int = 0  # bytes, 0: none
    warnings: tuple[str, ...] = ()  # limits that are not in force, and why
