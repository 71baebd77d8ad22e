"""btrfs subvolumes and quota groups, by ioctl(2).

Source: ``linux/btrfs.h`` and ``linux/btrfs_tree.h``. Unless stated otherwise, a descriptor is of
any directory of the file system. Names are single directory entries, never paths.

Facts about subvolumes: each is an inode 256 with its own device number. rename(2) moves one and
rmdir(2) removes an empty one. A process with write access to a directory can create one in it, so a
container can. A subvolume that contains others can be destroyed only after them.

Facts about simple quotas (Linux 6.7): an extent is charged to the subvolume that wrote it first, so
a snapshot starts with no usage. A subvolume created below another joins its groups. With full
accounting it does not.
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
    """Create an empty subvolume."""
    _ioctl("subvol_create", parent_fd, _SUBVOL_CREATE, _volume_args(0, name))


def snap_create(source_fd: int, parent_fd: int, name: str, *, read_only: bool = False) -> None:
    """Create a snapshot of the subvolume with root ``source_fd``."""
    flags = _RDONLY if read_only else 0
    argument = bytearray(_vol_args_v2.pack(source_fd, 0, flags, os.fsencode(name)))
    _ioctl("snap_create", parent_fd, _SNAP_CREATE_V2, argument)


def snap_destroy(fd: int, subvol_id: int) -> None:
    """Delete a subvolume with all its files.

    :raises OSError: ENOTEMPTY when it contains other subvolumes.
    """
    argument = bytearray(_vol_args_v2.pack(0, 0, _SPEC_BY_ID, b""))
    argument[56:64] = subvol_id.to_bytes(8, "little")
    _ioctl("snap_destroy", fd, _SNAP_DESTROY_V2, argument)


def set_read_only(fd: int) -> None:
    """Make the subvolume with root ``fd`` read-only."""
    flags = bytearray(8)
    _ioctl("subvol_getflags", fd, _SUBVOL_GETFLAGS, flags)
    flags[0] |= _RDONLY
    _ioctl("subvol_setflags", fd, _SUBVOL_SETFLAGS, flags)


def subvol_id(fd: int) -> int:
    """Return the id of the subvolume that contains ``fd``."""
    argument = bytearray(_ino_lookup.pack(0, FIRST_FREE_OBJECTID))
    _ioctl("ino_lookup", fd, _INO_LOOKUP, argument)
    return int.from_bytes(argument[:8], "little")


def is_subvol(fd: int) -> bool:
    """Return whether ``fd``, on btrfs, is the root of a subvolume."""
    return os.fstat(fd).st_ino == FIRST_FREE_OBJECTID


def children(fd: int, subvol_id: int) -> list[int]:
    """Return the ids of the subvolumes directly below one; needs ``CAP_SYS_ADMIN``."""
    ids: list[int] = []
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
        position = _SEARCH_BUFFER
        for _ in range(count):
            _, _, child, _, length = _search_header.unpack_from(argument, position)
            ids.append(child)
            position += _search_header.size + length
        if not count:
            return ids
        offset = ids[-1] + 1


def quota_enable(fd: int) -> None:
    """Enable quota accounting on the file system: simple quotas if the kernel supports them."""
    argument = bytearray(struct.pack("=QQ", _QUOTA_ENABLE_SIMPLE, 0))
    try:
        _ioctl("quota_enable", fd, _QUOTA_CTL, argument)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        _ioctl("quota_enable", fd, _QUOTA_CTL, bytearray(struct.pack("=QQ", _QUOTA_ENABLE, 0)))


def qgroup_create(fd: int, group: int) -> None:
    """Create a quota group.

    :raises OSError: ENOTCONN when quotas are disabled on the file system.
    """
    _ioctl("qgroup_create", fd, _QGROUP_CREATE, bytearray(struct.pack("=QQ", 1, group)))


def qgroup_remove(fd: int, group: int) -> None:
    """Remove a quota group.

    :raises OSError: EBUSY when it has members or its subvolume exists.
    """
    _ioctl("qgroup_remove", fd, _QGROUP_CREATE, bytearray(struct.pack("=QQ", 0, group)))


def qgroup_assign(fd: int, group: int, parent: int, *, assign: bool = True) -> None:
    """Add a group to a group of a higher level, or remove it."""
    argument = bytearray(struct.pack("=QQQ", assign, group, parent))
    _ioctl("qgroup_assign", fd, _QGROUP_ASSIGN, argument)


def qgroup_limit(fd: int, group: int, size: int) -> None:
    """Limit the exclusive bytes of a group to ``size``; :data:`UNLIMITED` removes the limit."""
    limit = struct.pack("=QQQQQQ", group, _LIMIT_MAX_EXCL, 0, size, 0, 0)
    _ioctl("qgroup_limit", fd, _QGROUP_LIMIT, bytearray(limit))


def qgroup(level: int, number: int) -> int:
    """Return the id of the group ``level/number``."""
    return level << 48 | number


def _volume_args(fd: int, name: str) -> bytearray:
    return bytearray(_vol_args.pack(fd, os.fsencode(name)))
