"""Decide how much memory the images of a migration may have at the source, and how large they are.

At the source they are in a tmpfs if they fit, and otherwise on the disk. At the target their size
is bounded by the memory of the offer, and a peer has a share of what all may have: a hole of a
sparse file needs no disk, but time to read.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from jaula.cgroups import own_memory
from jaula.features.migration import host_compatibility

if TYPE_CHECKING:
    from jaula.engine.oci_spec.inputs import HostFacts

_RESERVE = 256 << 20  # bytes of memory that images leave to others
_SMALL_IMAGES = 64 << 20  # bytes of images beside those of memory
_GROWTH = 512 << 20  # bytes by which a container may grow after its offer, beside as much again
_MAX_ROUNDS = 16
_RECEIVED = 8  # times the memory of the host: the images that may be on their way to it


class ImageMemory:
    """The memory that the images of migrations away from here may have."""

    def __init__(self) -> None:
        self._reserved: dict[str, int] = {}  # bytes, by migration

    def reserve(self, facts: HostFacts, migration: str, size: int) -> int:
        """Return how many bytes the images of a container of ``size`` bytes may have.

        These are reserved until :meth:`release`. 0: there is too little, with the limits of the
        engine's cgroup; or SELinux decides who may write to a tmpfs.
        """
        available = min(host_compatibility.available_memory(), _cgroup_room()) - sum(
            self._reserved.values()
        )
        limit = 0 if facts.selinux else choose_image_memory(size, available)
        if limit:
            self._reserved[migration] = size
        return limit

    def release(self, migration: str) -> None:
        """Release what was reserved, if anything was."""
        self._reserved.pop(migration, None)


def choose_image_memory(size: int, available: int) -> int:
    """Return the limit of the images, with ``available`` bytes; 0 if they do not fit. Pure."""
    spare = available - _RESERVE
    return spare if spare >= size + size // 8 + _SMALL_IMAGES else 0


def received_sizes(memory: int, rounds: int) -> tuple[int, int]:
    """Return the least and the largest size of the images of a container of ``memory`` bytes. Pure.

    Each of the ``rounds`` of a pre-copy may send all memory once more.
    """
    memory, rounds = max(0, memory), min(max(0, rounds), _MAX_ROUNDS)
    least = memory + memory // 8 + _SMALL_IMAGES
    return least, max(least, (2 + rounds) * memory + _GROWTH)


def total_received() -> int:
    """Return the bytes that all images on their way to this host may have together."""
    return _RECEIVED * host_compatibility.total_memory()


def has_mounts_of(pid: int) -> bool:
    """Return whether this process is in the mount namespace of another one."""
    try:
        return os.path.samefile(f"/proc/{pid}/ns/mnt", "/proc/self/ns/mnt")
    except (FileNotFoundError, PermissionError):
        return False


def _cgroup_room() -> int:
    """Return the bytes that the memory limits of this process's cgroup and those above leave."""
    place = own_memory.find()
    if place is None:
        return sys.maxsize
    room, path = sys.maxsize, place.path
    while path not in ("", "/"):
        room = min(room, _room(f"{place.root}{path}", place.files))
        path = os.path.dirname(path)
    return max(0, room)


def _room(directory: str, files: own_memory.Files) -> int:
    try:
        with open(f"{directory}/{files.limit}", encoding="ascii") as file:
            most = file.read().strip()
        with open(f"{directory}/{files.usage}", encoding="ascii") as file:
            return sys.maxsize if most == "max" else int(most) - int(file.read())
    except FileNotFoundError:
        return sys.maxsize
