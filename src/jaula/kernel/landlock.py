"""Landlock: restrict a process and its descendants to file hierarchies and TCP ports.

Source: landlock(7), Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
:mod:`jaula.security.landlock_ruleset` decides what is restricted.

Facts about domains: the calling thread enters a domain, and children inherit it over fork and exec.
A thread cannot leave a domain. Entering one needs no_new_privs or CAP_SYS_ADMIN in the user
namespace. No other process can read a domain or pass it on: /proc does not show it, and two
processes share one only by descent.

Facts about file hierarchies: a rule marks an inode. An access is allowed if the rules on the walk
from the file up to the root of the mount tree grant it together. A file whose walk meets no rule is
refused, however the process obtained its descriptor. Landlock checks opening, creating, removing,
renaming, linking, truncating and ioctls on devices. It does not check stat, chdir, chmod, chown,
utime or descriptors that were opened before. It never refuses pipes, sockets, memfds and nsfs.

Facts about side effects: a process in a domain that handles any file access cannot mount, unmount,
remount or pivot (EPERM), whatever its capabilities. It can trace only processes in its own or a
nested domain, and the same holds for ``exe``, ``fd``, ``environ``, ``root`` and similar files below
/proc. Since Linux 6.15, CAP_PERFMON on the host still gives access to maps and environ. A rename or
link between directories is refused (EXDEV) unless REFER is handled and granted.

Facts about versions: 1 is Linux 5.13; 2 (5.19) adds REFER; 3 (6.2) TRUNCATE; 4 (6.7) TCP ports; 5
(6.10) IOCTL_DEV; 6 (6.12) scopes; 7 (6.15) flags for audit records. The kernel answers EINVAL for a
right that it does not support.
"""

from __future__ import annotations

import ctypes
from enum import IntFlag
from typing import NamedTuple

from jaula.kernel.libc import syscall

NR_landlock_create_ruleset = 444
NR_landlock_add_rule = 445
NR_landlock_restrict_self = 446

LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_RULE_NET_PORT = 2


class LANDLOCK_ACCESS_FS(IntFlag):
    """Rights beneath a path."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class LANDLOCK_ACCESS_NET(IntFlag):
    """Rights on a TCP port."""

    BIND_TCP = 1 << 0
    CONNECT_TCP = 1 << 1


class LANDLOCK_SCOPE(IntFlag):
    """Operations that are restricted to the domain."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


class LANDLOCK_RESTRICT_SELF(IntFlag):
    """Denials that are written to the audit log."""

    LOG_SAME_EXEC_OFF = 1 << 0
    LOG_NEW_EXEC_ON = 1 << 1
    LOG_SUBDOMAINS_OFF = 1 << 2


_SINCE: tuple[tuple[int, int, int, int], ...] = (  # version, rights on files, ports, scopes
    (1, (1 << 13) - 1, 0, 0),
    (2, (1 << 14) - 1, 0, 0),
    (3, (1 << 15) - 1, 0, 0),
    (4, (1 << 15) - 1, 3, 0),
    (5, (1 << 16) - 1, 3, 0),
    (6, (1 << 16) - 1, 3, 3),
)


class SupportedRights(NamedTuple):
    """The rights that one version of the interface can handle."""

    access_fs: int
    access_net: int
    scoped: int
    restrict_self: int


def supported_rights(abi: int) -> SupportedRights:
    """Return the rights of an ABI version: none for 0, at most those of version 7."""
    fs = net = scoped = 0
    for since, *rights in _SINCE:
        if abi >= since:
            fs, net, scoped = rights
    return SupportedRights(fs, net, scoped, 7 if abi >= 7 else 0)


class landlock_ruleset_attr(ctypes.Structure):
    """Fields that an older kernel does not know must be zero; it then ignores them."""

    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class landlock_path_beneath_attr(ctypes.Structure):
    """A path and the rights beneath it; packed in the kernel's header."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class landlock_net_port_attr(ctypes.Structure):
    """struct landlock_net_port_attr: a port in host byte order, and the rights on it."""

    _fields_ = [("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


_create_ruleset = syscall(
    "landlock_create_ruleset",
    NR_landlock_create_ruleset,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_uint32,
)
_add_rule = syscall(
    "landlock_add_rule",
    NR_landlock_add_rule,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint32,
)
_restrict_self = syscall(
    "landlock_restrict_self", NR_landlock_restrict_self, ctypes.c_int, ctypes.c_uint32
)


def abi_version() -> int:
    """Return the Landlock ABI version.

    :raises OSError: when the kernel has no Landlock or it is disabled.
    """
    return _create_ruleset(None, 0, LANDLOCK_CREATE_RULESET_VERSION)


def create_ruleset(handled_access_fs: int, handled_access_net: int = 0, scoped: int = 0) -> int:
    """Create an empty ruleset; return its descriptor (close-on-exec).

    :raises OSError: EINVAL for a right that the kernel does not support, ENOMSG when no right is
        handled, ENOSYS or EOPNOTSUPP without Landlock.
    """
    attr = landlock_ruleset_attr(handled_access_fs, handled_access_net, scoped)
    return _create_ruleset(ctypes.addressof(attr), ctypes.sizeof(attr), 0)


def add_path_beneath(ruleset_fd: int, parent_fd: int, allowed_access: int) -> None:
    """Allow rights beneath a directory, or on a file.

    :raises OSError: EINVAL for a right that is not handled or that needs a directory, EBADFD for a
        file system without paths, such as that of pipes.
    """
    attr = landlock_path_beneath_attr(allowed_access, parent_fd)
    _add_rule(ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, ctypes.addressof(attr), 0)


def add_net_port(ruleset_fd: int, port: int, allowed_access: int) -> None:
    """Allow rights on a TCP port; port 0 stands for a bind to a port that the kernel selects."""
    attr = landlock_net_port_attr(allowed_access, port)
    _add_rule(ruleset_fd, LANDLOCK_RULE_NET_PORT, ctypes.addressof(attr), 0)


def restrict_self(ruleset_fd: int, flags: int = 0) -> None:
    """Enter the domain: restrict the calling thread and its future children permanently.

    :raises OSError: EPERM without no_new_privs and CAP_SYS_ADMIN in the user namespace, E2BIG at
        the sixteenth nested domain.
    """
    _restrict_self(ruleset_fd, flags)
