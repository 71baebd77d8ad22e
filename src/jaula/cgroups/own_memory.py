"""The memory that the cgroup of this process has left.

An engine and its shims share a cgroup, which may have a limit (systemd's ``MemoryMax=``). The
kernel kills a process when the limit is reached. The spare shims are the first, by their score. The
next one would be the engine or the shim of a container that runs, so no container is started then.

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

_UNLIMITED = 1 << 60  # v1 writes a value near 2^63
_KILLED_FIRST = "1000"  # oom_score_adj of a spare shim
_MIB = 1 << 20


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


class Headroom(NamedTuple):
    """Bytes that are left of a limit: the kernel can reclaim them, or kills spare shims first."""

    left: int
    limit: int


class OwnMemory:
    """The memory cgroup of this process. Not thread safe."""

    def __init__(self, directory: Path | None = None) -> None:
        """Use the cgroup ``directory``, by default that of this process."""
        self._directory = _own_directory() if directory is None else directory
        self._is_short = False

    def headroom(self) -> Headroom | None:
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
                left = limit - used
                return Headroom(left if left >= NEEDED else left + self._spare(), limit)
        return None

    def has_spare_room(self) -> bool:
        """Return whether a spare shim can be forked, and a start has room beside it."""
        headroom = self.headroom()
        return headroom is None or headroom.left >= NEEDED + SPARE

    def check(self, what: str) -> None:
        """Check that a container can be started. The log says once that it cannot.

        :raises Unavailable: when the kernel would kill the engine or a shim, as far as known.
        """
        headroom = self.headroom()
        if headroom is None or headroom.left >= NEEDED:
            self._is_short = False
            return
        left = f"{max(0, headroom.left) / _MIB:.0f} of {headroom.limit / _MIB:.0f} MiB left"
        if not self._is_short:
            self._is_short = True
            import logging  # not in the zygote

            log = logging.getLogger("jaula.engine")
            log.warning("the engine's memory cgroup has %s: no container is started", left)
        raise Unavailable(
            f"cannot start container {what}: the engine's memory cgroup has {left}, a start needs"
            f" {NEEDED // _MIB} MiB",
            hint="raise its limit (systemd: MemoryMax=), or stop containers",
        )

    def _spare(self) -> int:
        """Return the bytes of the processes that the kernel kills first, and of their children."""
        assert self._directory is not None
        pids = (self._directory / "cgroup.procs").read_text().split()
        first = set(filter(_is_killed_first, pids))
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


def _is_killed_first(pid: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == _KILLED_FIRST
    return False


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
