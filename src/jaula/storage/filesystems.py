"""The name of the file system below a path, from statfs(2)'s magic number.

Source: ``linux/magic.h`` and the file systems' own headers.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from jaula.kernel.libc import function

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


class _Statfs(ctypes.Structure):
    """struct statfs on 64-bit Linux."""

    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 256)]


_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)


def filesystem_name(path: Path) -> str:
    """``extfs``, ``xfs``, ...; the magic number in hex where it has no name here."""
    facts = _Statfs()
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _fstatfs(descriptor, ctypes.addressof(facts))
    finally:
        os.close(descriptor)
    magic = facts.f_type & 0xFFFFFFFF
    return _NAMES.get(magic, hex(magic))
