"""The memory that the cgroup of this process has left.

An engine, its shims and its sandboxed processes share a cgroup, which may have a limit (systemd's
``MemoryMax=``). The kernel kills a process when the limit is reached: spare shims and sandboxed
processes first, by their score. But it may kill the engine before the memory of the first one is
free. So the engine refuses what there is no room for, and has fewer spare shims when room is short.

Sources: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import functools
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jaula.cgroups import hierarchies
from jaula.cgroups.cgroup_files import flat_keyed
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


class Files(NamedTuple):
    """The names of a version's files, and the lines of memory.stat with reclaimable bytes."""

    limit: str
    usage: str
    reclaimable: tuple[str, ...]


V1 = Files(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
V2 = Files(
    "memory.max",
    "memory.current",
    ("inactive_file", "active_file", "slab_reclaimable"),
)


class Place(NamedTuple):
    """A memory cgroup: its ``path`` below the mount point ``root``."""

    root: str
    path: str
    files: Files


class _Memory(NamedTuple):
    limit: int
    left: int  # bytes, with those that the kernel can reclaim


class OwnMemory:
    """The memory cgroup of this process."""

    def __init__(self, place: Place | None = None) -> None:
        """Use the cgroup ``place``, by default that of this process, which may move."""
        self._given = place

    def spare_shims(self) -> int:
        """Return how many more spare shims there is room for; negative if there are too many."""
        found = self._read()
        return sys.maxsize if found is None else (found.left - RESERVE) // SPARE

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
        place = self._given or find()
        if place is None:
            return None
        directory, files = Path(f"{place.root}{place.path}"), place.files
        with suppress(OSError, ValueError):
            text = (directory / files.limit).read_text().strip()
            if text == "max" or int(text) >= _UNLIMITED:
                return None
            limit = int(text)
            used = int((directory / files.usage).read_text())
            details = flat_keyed((directory / "memory.stat").read_text())
            return _Memory(limit, limit - used + sum(details.get(n, 0) for n in files.reclaimable))
        return None


def find() -> Place | None:
    """Return the cgroup of this process in the tree with the limits of memory, if there is one."""
    tree = _tree()
    if tree is None:
        return None
    root, controller, files = tree
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.rstrip("\n").split(":", 2) for line in file]
    for _, controllers, path in rows:
        if controller in controllers.split(","):
            return Place(root, path, files)
    return None


@functools.cache
def _tree() -> tuple[str, str, Files] | None:
    """Return the mount point, and the controller in /proc/self/cgroup, which v2 does not name."""
    mounts = hierarchies.find(mountinfo.read())
    if "memory" in mounts.legacy:
        return mounts.legacy["memory"], "memory", V1
    return (mounts.unified, "", V2) if mounts.unified else None
