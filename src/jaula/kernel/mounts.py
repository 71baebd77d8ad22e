"""Mounts: mount(2), umount2(2), pivot_root(2) and the descriptor-based calls of Linux 5.2 to 6.5.

fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).

Facts about detached mounts: fsmount and open_tree(OPEN_TREE_CLONE) return a mount that is in no
mount namespace. It can be traversed by its descriptor and attached once. The kernel removes it when
the last descriptor closes, so a detached mount cannot leak.

Facts about overlayfs on id-mapped layers: fsuid and fsgid of the mounting task must be mapped ids.
Otherwise the mount is silently read-only. setfsuid drops the file capabilities from the effective
set; raise them again before making the mount.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

from jaula.kernel.libc import (
    IntEnum,
    IntFlag,
    NR_fsconfig,
    NR_fsmount,
    NR_fsopen,
    NR_mount_setattr,
    NR_move_mount,
    NR_open_tree,
    NR_pivot_root,
    function,
    syscall,
)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100


class MS(IntFlag):
    """Flags of mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    SYNCHRONOUS = 16
    REMOUNT = 32
    MANDLOCK = 64
    DIRSYNC = 128
    NOSYMFOLLOW = 256
    NOATIME = 1024
    NODIRATIME = 2048
    BIND = 4096
    MOVE = 8192
    REC = 16384
    SILENT = 32768
    POSIXACL = 1 << 16
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21
    I_VERSION = 1 << 23
    STRICTATIME = 1 << 24
    LAZYTIME = 1 << 25


class MNT(IntFlag):
    """Flags of umount2(2)."""

    FORCE = 1
    DETACH = 2
    EXPIRE = 4
    NOFOLLOW = 8


class MOUNT_ATTR(IntFlag):
    """Attributes of mount_setattr(2) and fsmount(2)."""

    RDONLY = 0x00000001
    NOSUID = 0x00000002
    NODEV = 0x00000004
    NOEXEC = 0x00000008
    NOATIME = 0x00000010
    STRICTATIME = 0x00000020
    NODIRATIME = 0x00000080
    IDMAP = 0x00100000
    NOSYMFOLLOW = 0x00200000


MOUNT_ATTR__ATIME = 0x70


class OPEN_TREE(IntFlag):
    """Flags of open_tree(2)."""

    CLONE = 1
    CLOEXEC = os.O_CLOEXEC


class FSCONFIG(IntEnum):
    """Commands of fsconfig(2)."""

    SET_FLAG = 0
    SET_STRING = 1
    SET_BINARY = 2
    SET_PATH = 3
    SET_PATH_EMPTY = 4
    SET_FD = 5
    CMD_CREATE = 6
    CMD_RECONFIGURE = 7


MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1


PROC_SUPER_MAGIC = 0x9FA0  # linux/magic.h


class statfs(ctypes.Structure):
    """struct statfs of 64-bit Linux; only ``f_type`` is used."""

    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 256)]


class mount_attr(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


_int, _str, _ulong = ctypes.c_int, ctypes.c_char_p, ctypes.c_ulong
_mount = function("mount", _str, _str, _str, _ulong, _str)
_umount2 = function("umount2", _str, _int)
_pivot_root = syscall("pivot_root", NR_pivot_root, _str, _str)
_fsopen = syscall("fsopen", NR_fsopen, _str, ctypes.c_uint)
_fsconfig = syscall("fsconfig", NR_fsconfig, _int, ctypes.c_uint, _str, _str, _int)
_fsmount = syscall("fsmount", NR_fsmount, _int, ctypes.c_uint, ctypes.c_uint)
_open_tree = syscall("open_tree", NR_open_tree, _int, _str, ctypes.c_uint)
_move_mount = syscall("move_mount", NR_move_mount, _int, _str, _int, _str, ctypes.c_uint)
_mount_setattr = syscall(
    "mount_setattr", NR_mount_setattr, _int, _str, ctypes.c_uint, ctypes.c_void_p, ctypes.c_size_t
)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(
    source: str | None,
    target: str,
    fstype: str | None,
    flags: MS | int = 0,
    data: str | None = None,
) -> None:
    """Mount a file system: mount(2)."""
    _mount(_bytes(source), _bytes(target), _bytes(fstype), int(flags), _bytes(data))


def umount2(target: str, flags: MNT | int = 0) -> None:
    """Unmount a file system: umount2(2)."""
    _umount2(_bytes(target), int(flags))


def pivot_root(new_root: str, put_old: str) -> None:
    """Change the root mount: pivot_root(2)."""
    _pivot_root(_bytes(new_root), _bytes(put_old))


_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)


def filesystem_magic(fd: int) -> int:
    """Return the file system type of a descriptor: ``f_type`` of fstatfs(2)."""
    buffer = statfs()
    _fstatfs(fd, ctypes.addressof(buffer))
    return int(buffer.f_type) & 0xFFFFFFFF


def fsopen(fstype: str) -> int:
    """Open a configuration context for a file system."""
    return _fsopen(_bytes(fstype), FSOPEN_CLOEXEC)


def fsconfig_set_string(fd: int, key: str, value: str) -> None:
    """Set ``key=value``; an error includes the kernel's message if there is one."""
    try:
        _fsconfig(fd, FSCONFIG.SET_STRING, _bytes(key), _bytes(value), 0)
    except OSError as error:
        raise _explained(fd, error, f"{key}={value}") from None


def fsconfig_set_flag(fd: int, key: str) -> None:
    """Set a parameter without a value, such as ``ro``."""
    try:
        _fsconfig(fd, FSCONFIG.SET_FLAG, _bytes(key), None, 0)
    except OSError as error:
        raise _explained(fd, error, key) from None


def fsconfig_set_fd(fd: int, key: str, value: int) -> None:
    """Set a parameter to a descriptor."""
    _fsconfig(fd, FSCONFIG.SET_FD, _bytes(key), None, value)


def fsconfig_create(fd: int) -> None:
    """Create the superblock."""
    try:
        _fsconfig(fd, FSCONFIG.CMD_CREATE, None, None, 0)
    except OSError as error:
        raise _explained(fd, error, "create") from None


def _explained(fd: int, error: OSError, parameter: str) -> OSError:
    """Return the error with the messages that the kernel queued on the context."""
    try:
        text = os.read(fd, 4096).decode(errors="replace").strip()
    except OSError:
        text = ""
    return OSError(error.errno, f"fsconfig {parameter}: {text or os.strerror(error.errno or 0)}")


def fsmount(fd: int, attributes: MOUNT_ATTR | int = 0) -> int:
    """Return a detached mount of a configured file system."""
    return _fsmount(fd, FSMOUNT_CLOEXEC, int(attributes))


def open_tree(
    path: str, *, dir_fd: int = AT_FDCWD, recursive: bool = False, clone: bool = True
) -> int:
    """Return a detached copy of the mount at ``path``; without ``clone`` open the path."""
    flags = OPEN_TREE.CLOEXEC | AT_EMPTY_PATH
    if clone:
        flags |= OPEN_TREE.CLONE
        if recursive:
            flags |= AT_RECURSIVE
    return _open_tree(dir_fd, _bytes(path), int(flags))


def move_mount(from_fd: int, to: str, *, to_fd: int = AT_FDCWD) -> None:
    """Attach a detached mount at ``to``; an empty ``to`` means the directory ``to_fd`` itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to else MOVE_MOUNT_T_EMPTY_PATH)
    _move_mount(from_fd, b"", to_fd, _bytes(to), flags)


def mount_setattr(
    fd: int,
    path: str = "",
    *,
    set: MOUNT_ATTR | int = 0,
    clear: int = 0,
    propagation: MS | int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """Change attributes, propagation or id map of a mount; ``recursive`` includes its submounts."""
    attributes = mount_attr(int(set), int(clear), int(propagation), userns_fd)
    flags = (AT_EMPTY_PATH if not path else 0) | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(fd, _bytes(path), flags, ctypes.addressof(attributes), ctypes.sizeof(attributes))


class statx(ctypes.Structure):
    """struct statx; the members without a name here are not used."""

    _fields_ = [
        ("stx_mask", ctypes.c_uint32),
        ("stx_blksize", ctypes.c_uint32),
        ("stx_attributes", ctypes.c_uint64),
        ("owner_to_blocks", ctypes.c_byte * 40),
        ("stx_attributes_mask", ctypes.c_uint64),
        ("times_to_devices", ctypes.c_byte * 80),
        ("stx_mnt_id", ctypes.c_uint64),
        ("rest", ctypes.c_byte * 104),
    ]


_STATX_MNT_ID = 0x1000
_STATX_MNT_ID_UNIQUE = 0x4000
_STATX_ATTR_MOUNT_ROOT = 0x2000
_statx = function("statx", _int, _str, _int, ctypes.c_uint, ctypes.c_void_p)


def _status(fd: int, mask: int) -> statx:
    buffer = statx()
    _statx(fd, b"", AT_EMPTY_PATH, mask, ctypes.addressof(buffer))
    return buffer


def mount_id(fd: int) -> int:
    """Return the id of the mount of a descriptor: statx(2), Linux 5.8.

    :raises OSError: ENOSYS when the kernel does not report mount ids.
    """
    return _reported_id(fd, _STATX_MNT_ID)


def unique_mount_id(fd: int) -> int:
    """Return an id of the mount of a descriptor that no later mount gets: statx(2), Linux 6.8.

    :raises OSError: ENOSYS when the kernel does not report such ids.
    """
    return _reported_id(fd, _STATX_MNT_ID_UNIQUE)


def _reported_id(fd: int, kind: int) -> int:
    status = _status(fd, kind)
    if not status.stx_mask & kind:
        name = "unique mount id" if kind == _STATX_MNT_ID_UNIQUE else "mount id"
        raise OSError(errno.ENOSYS, f"statx reports no {name}")
    return int(status.stx_mnt_id)


def is_mount_root(fd: int) -> bool:
    """Return whether a descriptor refers to the root of its mount: statx(2), Linux 5.8.

    :raises OSError: ENOSYS when the kernel does not report it.
    """
    status = _status(fd, 0)
    if not status.stx_attributes_mask & _STATX_ATTR_MOUNT_ROOT:
        raise OSError(errno.ENOSYS, "statx reports no mount roots")
    return bool(status.stx_attributes & _STATX_ATTR_MOUNT_ROOT)


def is_mount_point(path: str) -> bool:
    """Return whether ``path`` is a mount point, including a bind mount of its own file system."""
    target_fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        parent_fd = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
        try:
            return mount_id(target_fd) != mount_id(parent_fd)
        finally:
            os.close(parent_fd)
    finally:
        os.close(target_fd)


def idmap(fd: int, userns_fd: int, *, recursive: bool = False) -> None:
    """Set the id map of a detached mount to that of a user namespace."""
    mount_setattr(fd, set=MOUNT_ATTR.IDMAP, userns_fd=userns_fd, recursive=recursive)


def clone_tree(path: str, *, recursive: bool = False, dir_fd: int = AT_FDCWD) -> int:
    """Return a detached bind mount of ``path``."""
    return open_tree(path, dir_fd=dir_fd, recursive=recursive)


def overlay(
    lowers: Sequence[str],
    upper: str | None = None,
    work: str | None = None,
    *,
    options: Sequence[tuple[str, str | None]] = (),
    attributes: MOUNT_ATTR | int = 0,
) -> int:
    """Return a detached overlay mount; ``lowers`` go from the topmost layer to the base.

    An option with value None is a flag. Paths may be ``/proc/self/fd/N`` of detached mounts. Layers
    are added one by one (``lowerdir+``, Linux 6.7), so that a page does not bound their number;
    older kernels get one ``lowerdir`` string. One lower without upper returns a read-only bind
    mount of it.

    :raises OSError: also if the overlay with ``upper`` is read-only (fs/overlayfs/super.c): the
        kernel could not create a directory below ``work``. It does not tell the reason: ENOSPC if
        nothing is free there, otherwise EROFS.
    """
    if upper is None and len(lowers) == 1:  # overlayfs wants two directories at least
        tree = clone_tree(lowers[0])
        mount_setattr(tree, set=MOUNT_ATTR.RDONLY | attributes)
        return tree
    context = fsopen("overlay")
    try:
        fsconfig_set_string(context, "source", "overlay")
        try:
            for lower in lowers:
                fsconfig_set_string(context, "lowerdir+", lower)
        except OSError:
            escaped = ":".join(low.replace("\\", "\\\\").replace(":", "\\:") for low in lowers)
            fsconfig_set_string(context, "lowerdir", escaped)
        if upper is not None and work is not None:
            fsconfig_set_string(context, "upperdir", upper)
            fsconfig_set_string(context, "workdir", work)
        mount = _mounted(context, options, attributes)
        if work is not None and os.fstatvfs(mount).f_flag & os.ST_RDONLY & ~attributes:
            os.close(mount)
            status = os.statvfs(work)
            full = not status.f_bavail or (status.f_files and not status.f_favail)
            number = errno.ENOSPC if full else errno.EROFS
            raise OSError(number, f"overlay: {os.strerror(number)}")
        return mount
    finally:
        os.close(context)


def new_filesystem(
    fstype: str,
    options: Sequence[tuple[str, str | None]] = (),
    attributes: MOUNT_ATTR | int = 0,
    *,
    source: str | None = None,
) -> int:
    """Return a detached mount of a file system such as tmpfs, proc or, from ``source``, ext4.

    An option whose value is None is a flag.

    :raises OSError: with the kernel's explanation.
    """
    context = fsopen(fstype)
    try:
        fsconfig_set_string(context, "source", fstype if source is None else source)
        return _mounted(context, options, attributes)
    finally:
        os.close(context)


def _mounted(
    context: int, options: Sequence[tuple[str, str | None]], attributes: MOUNT_ATTR | int
) -> int:
    """Set the options of a context, make its superblock and return a detached mount of that."""
    for key, value in options:
        if value is None:
            fsconfig_set_flag(context, key)
        else:
            fsconfig_set_string(context, key, value)
    fsconfig_create(context)
    return fsmount(context, attributes)


__all__ = [name for name in dir() if not name.startswith("_") and name != "errno_error"]
