"""The memory that the cgroup of this process has left.

An engine, its shims and its sandboxed processes share a cgroup, which may have a limit (systemd's
``MemoryMax=``). The kernel kills a process when the limit is reached: spare shims and sandboxed
processes first, by their score. But it may kill the engine before the memory of the first one is
free. So the engine refuses what there is no room for, and has fewer spare shims when room is short.

Sources: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jaula.cgroups import hierarchies
from jaula.errors import Unavailable
from jaula.kernel import mountinfo

START = 9 << 20
"""Bytes that a start needs: a fork of the zygote that writes to its pages, and the engine's part.

With a limit of 60 MB a shim takes 0.7 to 2.3 MiB, and 13 containers run beside the engine.
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
        self._given = directory

    def spare_shims(self) -> int:
        """Return how many more spare shims there is room for; negative if there are too many."""
        found = self._read()
        return _MANY if found is None else (found.left - RESERVE) // SPARE

    def has_room(self, needed: int) -> bool:
        """Return whether so many bytes are left, as far as known."""
        found = self._read()
        return found is None or found.left >= needed

    def check(self, what: str, needed: int) -> None:
        """Check that so many bytes are left. ``what`` needs them, and begins the error.

        :raises Unavailable: when the kernel would kill the engine or a shim, as far as known.
        """
        found = self._read()
        if found is None or found.left >= needed:
            return
        raise Unavailable(
            f"{what}: the engine's memory cgroup has {max(0, found.left) // _MIB} of"
            f" {found.limit // _MIB} MiB left, and {needed // _MIB} MiB are needed",
            hint="raise its limit (systemd: MemoryMax=), or stop containers",
        )

    def _read(self) -> _Memory | None:
        """Return what is left, None without a limit."""
        directory = self._given or _own_directory()
        if directory is None:
            return None
        for files in (_V2, _V1):
            with suppress(OSError, ValueError):
                text = (directory / files.limit).read_text().strip()
                if text == "max" or int(text) >= _UNLIMITED:
                    return None
                limit = int(text)
                used = int((directory / files.usage).read_text())
                rows = (directory / "memory.stat").read_text().split()
                used -= sum(
                    int(value)
                    for name, value in zip(rows[::2], rows[1::2], strict=True)
                    if name in files.reclaimable
                )
                return _Memory(limit, limit - used)
        return None


def _own_directory() -> Path | None:
    """Return the cgroup of this process, which may have moved."""
    tree = _tree()
    try:
        rows = Path("/proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    for row in rows:
        _, controllers, path = row.split(":", 2)
        if tree and tree.controller in controllers.split(","):
            return Path(f"{tree.mount_point}{path}")
    return None


class _Tree(NamedTuple):
    mount_point: str
    controller: str  # in /proc/self/cgroup; v2 has none


@functools.cache
def _tree() -> _Tree | None:
    """Return the tree with the limits of memory."""
    mounts = hierarchies.find(mountinfo.read())
    if "memory" in mounts.legacy:
        return _Tree(mounts.legacy["memory"], "memory")
    return _Tree(mounts.unified, "") if mounts.unified else None
