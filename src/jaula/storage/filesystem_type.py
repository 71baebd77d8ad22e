"""Name the type of the file system at a path, by the magic number of statfs(2).

Source: ``linux/magic.h`` and the headers of the file systems.
"""

from __future__ import annotations

import os
from pathlib import Path

from jaula.kernel.mounts import filesystem_magic

_NAMES = {
    0xEF53: "extfs",  # Docker's word for ext2, ext3 and ext4
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0x6969: "nfs",
    0xCA451A4E: "bcachefs",
    0x858458F6: "ramfs",
    0x73717368: "squashfs",
    0xE0F5E1E2: "erofs",
    0x4D44: "msdos",
    0x65735546: "fuse",
    0x01021997: "v9fs",
}

_DATED = ("extfs", "xfs", "btrfs")


def dates_all_writes(path: Path) -> bool:
    """Return whether each change of a file here changes its ctime, by mappings too.

    These file systems set it when a program writes to a clean page of a shared mapping
    (``file_update_time`` in ``page_mkwrite``). tmpfs does not, and of others it is not known.
    """
    return filesystem_name(path) in _DATED


def filesystem_name(path: Path) -> str:
    """Return ``extfs``, ``xfs`` and so on, or the magic number in hex if it has no name."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        magic = filesystem_magic(descriptor)
    finally:
        os.close(descriptor)
    return _NAMES.get(magic, hex(magic))
