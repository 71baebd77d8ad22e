"""The memory that the cgroup of this process has left.

An engine and its shims share a cgroup, which may have a limit (systemd's ``MemoryMax=``). The
kernel kills a process when the limit is reached. Spare shims and sandboxed processes are the first,
by their score. The next one would be the engine or the shim of a container that runs. So there are
fewer spare shims when memory is short, and no container is started when there is none left.

Sources: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jaula.cgroups import hierarchies
from jaula.errors import Unavailable
from jaula.kernel import mountinfo

NEEDED = 9 << 20
"""Bytes that a start needs: a fork of the zygote that writes to its pages, and the engine's part.

Measured with a limit of 60 MB: a shim takes 1 to 3 MiB, and 19 containers run beside the engine.
"""

SPARE = 6 << 20
"""Bytes that a spare shim, its helper and the zygote's copies of their pages take."""

RESERVE = 24 << 20
"""Bytes that spare shims leave: a start, and the sandboxed processes that read an archive."""

_UNLIMITED = 1 << 60  # v1 writes a value near 2^63
_MIB = 1 << 20
_MANY = 1 << 20  # spare shims


class _Memory(NamedTuple):
    limit: int
    left: int  # bytes, with those that the kernel can reclaim


class _Files(NamedTuple):
    limit: str
    usage: str
    reclaimable: frozenset[str]  # lines of memory.stat


_V1 = _Files(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    frozenset({"total_inactive_file", "total_active_file"}),
)
_V2 = _Files(
    "memory.max",
    "memory.current",
    frozenset({"inactive_file", "active_file", "slab_reclaimable"}),
)


class OwnMemory:
    """The memory cgroup of this process."""

    def __init__(self, directory: Path | None = None) -> None:
        """Use the cgroup ``directory``, by default that of this process."""
        self._directory = _own_directory() if directory is None else directory

    def spare_shims(self) -> int:
        """Return how many more spare shims there is room for; negative if there are too many."""
        found = self._read()
        return _MANY if found is None else (found.left - RESERVE) // SPARE

    def check(self, what: str) -> None:
        """Check that a container can be started.

        :raises Unavailable: when the kernel would kill the engine or a shim, as far as known.
        """
        found = self._read()
        if found is None or found.left >= NEEDED:
            return
        left = max(0, found.left + self._killed_first())
        if left >= NEEDED:
            return
        raise Unavailable(
            f"cannot start container {what}: the engine's memory cgroup has {left // _MIB} of"
            f" {found.limit // _MIB} MiB left, a start needs {NEEDED // _MIB} MiB",
            hint="raise its limit (systemd: MemoryMax=), or stop containers",
        )

    def _read(self) -> _Memory | None:
        """Return what is left, None without a limit."""
        if self._directory is None:
            return None
        for files in (_V2, _V1):
            with suppress(OSError, ValueError):
                text = (self._directory / files.limit).read_text().strip()
                if text == "max" or int(text) >= _UNLIMITED:
                    return None
                limit = int(text)
                used = int((self._directory / files.usage).read_text())
                rows = (self._directory / "memory.stat").read_text().split()
                used -= sum(
                    int(value)
                    for name, value in zip(rows[::2], rows[1::2], strict=True)
                    if name in files.reclaimable
                )
                return _Memory(limit, limit - used)
        return None

    def _killed_first(self) -> int:
        """Return the bytes of the processes that the kernel kills before this one."""
        assert self._directory is not None
        pids = (self._directory / "cgroup.procs").read_text().split()
        own = _oom_score_adj("self")
        first = {pid for pid in pids if _oom_score_adj(pid) > own}
        return sum(_private_bytes(pid) for pid in pids if pid in first or _parent(pid) in first)


def _own_directory() -> Path | None:
    mounts = hierarchies.find(mountinfo.read())
    try:
        rows = Path("/proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    mount = mounts.legacy.get("memory") or mounts.unified
    for row in rows:
        _, controllers, path = row.split(":", 2)
        if mount and ("memory" in controllers.split(",") if mounts.legacy else not controllers):
            return Path(f"{mount}{path}")
    return None


def _oom_score_adj(pid: str) -> int:
    """Return the score of a process; that of one which is killed last if it has ended."""
    with suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    return -1000


def _parent(pid: str) -> str:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return ""


def _private_bytes(pid: str) -> int:
    """Return the bytes that the end of a process frees; 0 if it has ended."""
    with suppress(OSError, ValueError, IndexError):
        with open(os.path.join("/proc", pid, "smaps_rollup"), encoding="ascii") as file:
            rows = [line.split() for line in file if line.startswith("Private_Dirty:")]
        return int(rows[0][1]) * 1024
    return 0
