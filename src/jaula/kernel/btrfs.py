"""Subvolumes and quota groups of btrfs, through ioctl(2).

Source: ``linux/btrfs.h`` and ``linux/btrfs_tree.h``. A descriptor is of any directory of the file
system where nothing else is said; names are a directory entry each, never a path.

Facts about subvolumes: each is an inode 256 with a device number of its own; rename(2) moves one,
rmdir(2) removes an empty one; whoever may write to a directory can make one in it, so a container
can. A subvolume that holds others cannot be destroyed before them.

Facts about simple quotas (Linux 6.7): an extent counts for the subvolume that wrote it first, so
that a snapshot starts with nothing, and what is made below a subvolume joins its groups by itself.
In full accounting it does not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

FIRST_FREE_OBJECTID = 256
UNLIMITED = 2**64 - 1
_ROOT_TREE = 1
_ROOT_REF_KEY = 156

_SUBVOL_CREATE = 0x5000940E
_SNAP_CREATE_V2 = 0x50009417
_SNAP_DESTROY_V2 = 0x5000943F
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_INO_LOOKUP = 0xD0009412
_TREE_SEARCH = 0xD0009411
_QUOTA_CTL = 0xC0109428
_QGROUP_ASSIGN = 0x40189429
_QGROUP_CREATE = 0x4010942A
_QGROUP_LIMIT = 0x8030942B

_RDONLY = 1 << 1  # BTRFS_SUBVOL_RDONLY
_SPEC_BY_ID = 1 << 4  # BTRFS_SUBVOL_SPEC_BY_ID
_QUOTA_ENABLE, _QUOTA_ENABLE_SIMPLE = 1, 4  # BTRFS_QUOTA_CTL_*
_LIMIT_MAX_RFER, _LIMIT_MAX_EXCL = 1, 2  # BTRFS_QGROUP_LIMIT_*

_vol_args = struct.Struct("=q4088s")
_vol_args_v2 = struct.Struct("=qQQ32x4040s")
_ino_lookup = struct.Struct("=QQ4080x")
_search_key = struct.Struct("=7Q3I36x3992x")
_search_header = struct.Struct("=QQQII")
_SEARCH_BUFFER = 104  # offset in struct btrfs_ioctl_search_args


def _ioctl(what: str, fd: int, request: int, argument: bytearray) -> None:
    try:
        fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise OSError(error.errno, f"{what}: {os.strerror(error.errno or 0)}") from None


def subvol_create(parent_fd: int, name: str) -> None:
    """Make an empty subvolume."""
    _ioctl("subvol_create", parent_fd, _SUBVOL_CREATE, _named(0, name))


def snap_create(source_fd: int, parent_fd: int, name: str, *, read_only: bool = False) -> None:
    """Make a snapshot of the subvolume whose root ``source_fd`` is."""
    flags = _RDONLY if read_only else 0
    argument = bytearray(_vol_args_v2.pack(source_fd, 0, flags, os.fsencode(name)))
    _ioctl("snap_create", parent_fd, _SNAP_CREATE_V2, argument)


def snap_destroy(fd: int, subvol_id: int) -> None:
    """Remove a subvolume of the file system with all its files; ``ENOTEMPTY``: it holds others."""
    argument = bytearray(_vol_args_v2.pack(0, 0, _SPEC_BY_ID, b""))
    argument[56:64] = subvol_id.to_bytes(8, "little")
    _ioctl("snap_destroy", fd, _SNAP_DESTROY_V2, argument)


def set_read_only(fd: int) -> None:
    """Make the subvolume whose root ``fd`` is unchangeable."""
    flags = bytearray(8)
    _ioctl("subvol_getflags", fd, _SUBVOL_GETFLAGS, flags)
    flags[0] |= _RDONLY
    _ioctl("subvol_setflags", fd, _SUBVOL_SETFLAGS, flags)


def subvol_id(fd: int) -> int:
    """The id of the subvolume that ``fd`` lies in."""
    argument = bytearray(_ino_lookup.pack(0, FIRST_FREE_OBJECTID))
    _ioctl("ino_lookup", fd, _INO_LOOKUP, argument)
    return int.from_bytes(argument[:8], "little")


def is_subvol(fd: int) -> bool:
    """Whether ``fd``, on btrfs, is the root of a subvolume."""
    return os.fstat(fd).st_ino == FIRST_FREE_OBJECTID


def children(fd: int, subvol_id: int) -> list[int]:
    """Ids of the subvolumes directly below one; needs ``CAP_SYS_ADMIN``."""
    found: list[int] = []
    offset = 0
    while True:
        argument = bytearray(
            _search_key.pack(
                *(_ROOT_TREE, subvol_id, subvol_id, offset, 2**64 - 1, 0, 2**64 - 1),
                *(_ROOT_REF_KEY, _ROOT_REF_KEY, 64),
            )
        )
        _ioctl("tree_search", fd, _TREE_SEARCH, argument)
        count = int.from_bytes(argument[64:68], "little")
        place = _SEARCH_BUFFER
        for _ in range(count):
            _, _, child, _, length = _search_header.unpack_from(argument, place)
            found.append(child)
            place += _search_header.size + length
        if not count:
            return found
        offset = found[-1] + 1


def quota_enable(fd: int) -> None:
    """Begin accounting on the whole file system: simple quotas where the kernel has them."""
    argument = bytearray(struct.pack("=QQ", _QUOTA_ENABLE_SIMPLE, 0))
    try:
        _ioctl("quota_enable", fd, _QUOTA_CTL, argument)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        _ioctl("quota_enable", fd, _QUOTA_CTL, bytearray(struct.pack("=QQ", _QUOTA_ENABLE, 0)))


def qgroup_create(fd: int, group: int) -> None:
    """Make a quota group; ``ENOTCONN``: the file system keeps no quota."""
    _ioctl("qgroup_create", fd, _QGROUP_CREATE, bytearray(struct.pack("=QQ", 1, group)))


def qgroup_remove(fd: int, group: int) -> None:
    """Remove a group; ``EBUSY``: it has members, or its subvolume is there."""
    _ioctl("qgroup_remove", fd, _QGROUP_CREATE, bytearray(struct.pack("=QQ", 0, group)))


def qgroup_assign(fd: int, group: int, parent: int, *, assign: bool = True) -> None:
    """Make a group a member of one of a higher level, or no more."""
    argument = bytearray(struct.pack("=QQQ", assign, group, parent))
    _ioctl("qgroup_assign", fd, _QGROUP_ASSIGN, argument)


def qgroup_limit(fd: int, group: int, most: int) -> None:
    """Bytes that a group may have for itself alone, or :data:`UNLIMITED`."""
    limit = struct.pack("=QQQQQQ", group, _LIMIT_MAX_EXCL, 0, most, 0, 0)
    _ioctl("qgroup_limit", fd, _QGROUP_LIMIT, bytearray(limit))


def qgroup(level: int, number: int) -> int:
    """The id of a group ``level/number``."""
    return level << 48 | number


def _named(fd: int, name: str) -> bytearray:
    return bytearray(_vol_args.pack(fd, os.fsencode(name)))
