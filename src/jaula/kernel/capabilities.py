"""Capabilities of the calling process: capget(2), capset(2), and their prctl(2) options.

Source: capabilities(7) and include/uapi/linux/capability.h. Sets are integers with bit N for
capability N, as in /proc/<pid>/status. :mod:`jaula.security.capability_sets` decides what a
container gets.

Facts about the order of dropping: prctl changes the bounding and ambient sets and needs CAP_SETPCAP
or a permitted capability, so it comes before capset. setresuid away from 0 clears the effective set
and, without PR_SET_KEEPCAPS, the permitted set; set them to their final value after it. A change to
a uid other than 0 followed by execve of a plain file leaves only the ambient set.

Facts about the number of capabilities: the kernel has no call for it. PR_CAPBSET_READ answers
EINVAL for an unknown number and needs no /proc.
"""

from __future__ import annotations

import ctypes

from jaula.kernel.libc import function
from jaula.kernel.process_calls import prctl

NAMES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""The kernel's names; the index is the number."""

SETS = ("inheritable", "permitted", "effective", "bounding", "ambient")
"""The five sets, in the order of /proc/<pid>/status."""

_STATUS = dict(zip(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), SETS, strict=True))

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_LOWER = 3
PR_CAP_AMBIENT_CLEAR_ALL = 4


class cap_user_header(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class cap_user_data(ctypes.Structure):
    """struct __user_cap_data_struct; version 3 takes two, low 32 bits first."""

    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


_capget = function("capget", ctypes.c_void_p, ctypes.c_void_p)
_capset = function("capset", ctypes.c_void_p, ctypes.c_void_p)
_LOW = 0xFFFFFFFF


def capget(pid: int = 0) -> tuple[int, int, int]:
    """Return (effective, permitted, inheritable) of a thread; 0 is the caller."""
    header = cap_user_header(_LINUX_CAPABILITY_VERSION_3, pid)
    data = (cap_user_data * 2)()
    _capget(ctypes.addressof(header), ctypes.addressof(data))
    low, high = data[0], data[1]
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets of the calling thread."""
    header = cap_user_header(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (cap_user_data * 2)(
        cap_user_data(effective & _LOW, permitted & _LOW, inheritable & _LOW),
        cap_user_data(effective >> 32, permitted >> 32, inheritable >> 32),
    )
    _capset(ctypes.addressof(header), ctypes.addressof(data))


_last: int | None = None


def last_cap() -> int:
    """Return the highest capability number of the running kernel."""
    global _last
    if _last is None:
        number = 0
        while number < 63:
            try:
                prctl(PR_CAPBSET_READ, number + 1)
            except OSError:
                break
            number += 1
        _last = number
    return _last


def bounding() -> int:
    """Return the calling thread's bounding set."""
    return sum(1 << n for n in range(last_cap() + 1) if prctl(PR_CAPBSET_READ, n))


def drop_bounding(mask_to_keep: int) -> None:
    """Remove every capability outside ``mask_to_keep`` from the bounding set.

    Needs CAP_SETPCAP in the caller's user namespace, unless every one of them is absent already.
    """
    for number in range(last_cap() + 1):
        if mask_to_keep >> number & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except PermissionError:
            if prctl(PR_CAPBSET_READ, number):
                raise


def clear_ambient() -> None:
    """Empty the ambient set."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def raise_ambient(mask: int) -> None:
    """Add capabilities to the ambient set; each must be permitted and inheritable."""
    for number in range(last_cap() + 1):
        if mask >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def keep_on_setuid(keep: bool) -> None:
    """Set PR_SET_KEEPCAPS: whether the permitted set survives a change to a uid other than 0."""
    prctl(PR_SET_KEEPCAPS, int(keep))


def parse_status_masks(text: str) -> dict[str, int]:
    """Return the five sets in the text of /proc/<pid>/status, by the names in ``SETS``.

    :raises ValueError: when a set is missing.
    """
    masks: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key in _STATUS:
            masks[_STATUS[key]] = int(value, 16)
    if missing := [name for name in SETS if name not in masks]:
        raise ValueError(f"no {', '.join(missing)} set in the process status")
    return masks


def read_status_masks(pid: int | str, proc_root: str = "/proc") -> dict[str, int]:
    """Return the five sets of a process from its /proc status, by the names in ``SETS``."""
    with open(f"{proc_root}/{pid}/status", encoding="ascii", errors="replace") as status:
        return parse_status_masks(status.read())
