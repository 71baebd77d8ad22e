"""Mounts: mount(2), umount2(2), pivot_root(2) and the descriptor-based calls of Linux 5.2 to 6.5.

fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).

Facts about detached mounts: what fsmount and open_tree(OPEN_TREE_CLONE) return is in no mount
namespace; it can be walked through the descriptor, attached once, and is gone when the last
descriptor closes. Nothing made that way can leak.

Facts about overlayfs over id-mapped layers: the mounting task's fsuid and fsgid must be ids that
the map knows, or the mount comes up read-only without a word; setfsuid drops the file capabilities
from the effective set, which have to be raised again before the mount is made.
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
    """struct statfs of 64-bit Linux, as far as it is read here."""

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
    """mount(2)."""
    _mount(_bytes(source), _bytes(target), _bytes(fstype), int(flags), _bytes(data))


def umount2(target: str, flags: MNT | int = 0) -> None:
    """umount2(2)."""
    _umount2(_bytes(target), int(flags))


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _pivot_root(_bytes(new_root), _bytes(put_old))


_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)


def filesystem_magic(fd: int) -> int:
    """``f_type`` of fstatfs(2): which kind of file system a descriptor is of."""
    facts = statfs()
    _fstatfs(fd, ctypes.addressof(facts))
    return int(facts.f_type) & 0xFFFFFFFF


def fsopen(fstype: str) -> int:
    """A configuration context for a file system."""
    return _fsopen(_bytes(fstype), FSOPEN_CLOEXEC)


def fsconfig_set_string(fd: int, key: str, value: str) -> None:
    """Set ``key=value``; a refusal carries the kernel's own explanation where it gives one."""
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
    """Make the superblock."""
    try:
        _fsconfig(fd, FSCONFIG.CMD_CREATE, None, None, 0)
    except OSError as error:
        raise _explained(fd, error, "create") from None


def _explained(fd: int, error: OSError, about: str) -> OSError:
    """The messages that the kernel queued on the context, added to the error."""
    try:
        text = os.read(fd, 4096).decode(errors="replace").strip()
    except OSError:
        text = ""
    return OSError(error.errno, f"fsconfig {about}: {text or os.strerror(error.errno or 0)}")


def fsmount(fd: int, attributes: MOUNT_ATTR | int = 0) -> int:
    """A detached mount of a configured file system."""
    return _fsmount(fd, FSMOUNT_CLOEXEC, int(attributes))


def open_tree(
    path: str, *, dir_fd: int = AT_FDCWD, recursive: bool = False, clone: bool = True
) -> int:
    """A detached copy of the mount at ``path`` (with ``clone``), or a descriptor of the path."""
    flags = OPEN_TREE.CLOEXEC | AT_EMPTY_PATH
    if clone:
        flags |= OPEN_TREE.CLONE
        if recursive:
            flags |= AT_RECURSIVE
    return _open_tree(dir_fd, _bytes(path), int(flags))


def move_mount(from_fd: int, to: str, *, to_fd: int = AT_FDCWD) -> None:
    """Attach a detached mount; with an empty ``to`` on the directory of ``to_fd`` itself."""
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
    """Change attributes, propagation or the id map of a mount or, ``recursive``, of its tree."""
    attributes = mount_attr(int(set), int(clear), int(propagation), userns_fd)
    flags = (AT_EMPTY_PATH if not path else 0) | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(fd, _bytes(path), flags, ctypes.addressof(attributes), ctypes.sizeof(attributes))


def mount_id(fd: int) -> int:
    """The mount that a descriptor is on (proc_pid_fdinfo(5)), in this thread's namespace."""
    with open(f"/proc/thread-self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    raise OSError(errno.ENOSYS, "the kernel tells no mount's number")


def is_mount_point(path: str) -> bool:
    """Whether something is mounted at ``path``, a bind of its own file system too."""
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        above = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
        try:
            return mount_id(place) != mount_id(above)
        finally:
            os.close(above)
    finally:
        os.close(place)


def mount_points() -> list[str]:
    """Where something is mounted in this thread's namespace (proc_pid_mountinfo(5))."""
    with open("/proc/thread-self/mountinfo", "rb") as file:
        return [os.fsdecode(_unescaped(line.split(b" ", 5)[4])) for line in file]


def _unescaped(path: bytes) -> bytes:
    """Blank, tab, newline and backslash are ``\\`` and three octal digits there."""
    first, *rest = path.split(b"\\")
    return first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in rest)


def idmap(fd: int, userns_fd: int, *, recursive: bool = False) -> None:
    """Give a detached mount the id map of a user namespace."""
    mount_setattr(fd, set=MOUNT_ATTR.IDMAP, userns_fd=userns_fd, recursive=recursive)


def clone_tree(path: str, *, recursive: bool = False, dir_fd: int = AT_FDCWD) -> int:
    """A detached bind mount of ``path``."""
    return open_tree(path, dir_fd=dir_fd, recursive=recursive)


def overlay(
    lowers: Sequence[str],
    upper: str | None = None,
    work: str | None = None,
    *,
    options: Sequence[tuple[str, str | None]] = (),
    attributes: MOUNT_ATTR | int = 0,
) -> int:
    """A detached overlay mount; ``lowers`` from the topmost to the base.

    An option whose value is None is a flag.

    Paths may be ``/proc/self/fd/N`` of detached mounts. Layers are added one by one
    (``lowerdir+``, Linux 6.7) so that their number is not bounded by a page; older kernels get one
    ``lowerdir`` string. One lower and no upper gives a read-only bind mount of it.
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
        for key, value in options:
            if value is None:
                fsconfig_set_flag(context, key)
            else:
                fsconfig_set_string(context, key, value)
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def new_filesystem(
    fstype: str, options: Sequence[tuple[str, str | None]] = (), attributes: MOUNT_ATTR | int = 0
) -> int:
    """A detached mount of a fresh file system such as tmpfs or proc."""
    context = fsopen(fstype)
    try:
        fsconfig_set_string(context, "source", fstype)
        for key, value in options:
            if value is None:
                fsconfig_set_flag(context, key)
            else:
                fsconfig_set_string(context, key, value)
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


__all__ = [name for name in dir() if not name.startswith("_") and name != "failed"]
