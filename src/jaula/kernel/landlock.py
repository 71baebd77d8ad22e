"""Landlock: a process and its descendants confined to file hierarchies and TCP ports of their own.

Follows landlock(7), Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
What is to be confined is decided elsewhere.

Facts about domains: a domain is entered by the calling thread, inherited over fork and exec, and
never left. It can be entered only with no_new_privs or CAP_SYS_ADMIN in one's user namespace.
Nothing outside can read or hand over a domain: /proc shows none, and two processes share one only
by descent.

Facts about file hierarchies: a rule marks an inode, and an access is allowed where the rules met on
the walk from the file up to the root of the mount tree grant it together. A file whose walk meets
no rule is refused, however its descriptor was come by. Only opening, making, removing, renaming,
linking, truncating and ioctls on devices are checked; stat, chdir, chmod, chown, utime, and what
was open before, are not. Pipes, sockets, memfds and nsfs are never refused.

Facts about side effects: whoever is in a domain that handles any file access cannot mount, unmount,
remount or pivot (EPERM), whatever its capabilities. A process can trace, and open ``exe``, ``fd``,
``environ``, ``root`` and the like below /proc of, only those in its own domain or one nested in it
(who has CAP_PERFMON on the host can still read maps and environ, since Linux 6.15).
A rename or link between directories is refused (EXDEV) unless REFER is handled and granted.

Facts about versions: 1 is Linux 5.13; 2 (5.19) adds REFER; 3 (6.2) TRUNCATE; 4 (6.7) TCP ports;
5 (6.10) IOCTL_DEV; 6 (6.12) scopes; 7 (6.15) flags for audit records. A right that the kernel does
not know is answered with EINVAL.
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
    """What may be done beneath a path."""

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
    """What may be done with a TCP port."""

    BIND_TCP = 1 << 0
    CONNECT_TCP = 1 << 1


class LANDLOCK_SCOPE(IntFlag):
    """What is kept within the domain."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


class LANDLOCK_RESTRICT_SELF(IntFlag):
    """Which refusals are written to the audit log."""

    LOG_SAME_EXEC_OFF = 1 << 0
    LOG_NEW_EXEC_ON = 1 << 1
    LOG_SUBDOMAINS_OFF = 1 << 2


_SINCE: tuple[tuple[int, int, int, int], ...] = (  # version: all rights on files, ports, scopes
    (1, (1 << 13) - 1, 0, 0),
    (2, (1 << 14) - 1, 0, 0),
    (3, (1 << 15) - 1, 0, 0),
    (4, (1 << 15) - 1, 3, 0),
    (5, (1 << 16) - 1, 3, 0),
    (6, (1 << 16) - 1, 3, 3),
)


class SupportedRights(NamedTuple):
    """All that one version of the interface can handle."""

    access_fs: int
    access_net: int
    scoped: int
    restrict_self: int


def supported_rights(abi: int) -> SupportedRights:
    """What a version knows; nothing for version 0, and no more than is named here for a new one."""
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
    """A port, in the host's byte order, and what may be done with it."""

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
    """The version of Landlock; ``OSError`` where the kernel has none or it is switched off."""
    return _create_ruleset(None, 0, LANDLOCK_CREATE_RULESET_VERSION)


def create_ruleset(handled_access_fs: int, handled_access_net: int = 0, scoped: int = 0) -> int:
    """A descriptor (close-on-exec) of an empty set of rules.

    Raises ``OSError``: EINVAL for a right that this kernel does not know, ENOMSG where nothing is
    handled, ENOSYS or EOPNOTSUPP without Landlock.
    """
    attr = landlock_ruleset_attr(handled_access_fs, handled_access_net, scoped)
    return _create_ruleset(ctypes.addressof(attr), ctypes.sizeof(attr), 0)


def add_path_beneath(ruleset_fd: int, parent_fd: int, allowed_access: int) -> None:
    """Allow rights beneath a directory, or on a file.

    Raises ``OSError``: EINVAL for a right that is not handled, or one of directories on a file;
    EBADFD for a file system that has no paths, such as a pipe's.
    """
    attr = landlock_path_beneath_attr(allowed_access, parent_fd)
    _add_rule(ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, ctypes.addressof(attr), 0)


def add_net_port(ruleset_fd: int, port: int, allowed_access: int) -> None:
    """Allow rights on a TCP port; 0 is the port of a bind that leaves the choice to the kernel."""
    attr = landlock_net_port_attr(allowed_access, port)
    _add_rule(ruleset_fd, LANDLOCK_RULE_NET_PORT, ctypes.addressof(attr), 0)


def restrict_self(ruleset_fd: int, flags: int = 0) -> None:
    """Confine the calling thread and its children to come, for good.

    Raises ``OSError``: EPERM without no_new_privs and without CAP_SYS_ADMIN in the user namespace,
    E2BIG at the sixteenth domain within another.
    """
    _restrict_self(ruleset_fd, flags)
