"""CPU and I/O scheduling: sched_setattr(2), sched_getattr(2), ioprio_set(2).

Source: include/uapi/linux/sched.h, sched/types.h and ioprio.h. Policies and flags have the names of
the OCI runtime specification.
"""

from __future__ import annotations

import ctypes

from jaula.kernel.libc import MACHINE, syscall

NR_sched_setattr, NR_sched_getattr, NR_ioprio_set, NR_ioprio_get = {
    "x86_64": (314, 315, 251, 252),
}.get(MACHINE, (274, 275, 30, 31))

POLICIES: dict[str, int] = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
"""Scheduling policies. SCHED_ISO (4), which the specification lists, does not exist in Linux."""

SCHED_FLAGS: dict[str, int] = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

IOPRIO_CLASSES: dict[str, int] = {
    "IOPRIO_CLASS_NONE": 0,
    "IOPRIO_CLASS_RT": 1,
    "IOPRIO_CLASS_BE": 2,
    "IOPRIO_CLASS_IDLE": 3,
}
IOPRIO_CLASS_SHIFT = 13
IOPRIO_WHO_PROCESS = 1


class sched_attr(ctypes.Structure):
    """struct sched_attr, version 1 (56 bytes, Linux 5.3). Times are in nanoseconds."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
        ("sched_util_min", ctypes.c_uint32),
        ("sched_util_max", ctypes.c_uint32),
    ]


_sched_setattr = syscall(
    "sched_setattr", NR_sched_setattr, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint
)
_sched_getattr = syscall(
    "sched_getattr",
    NR_sched_getattr,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_uint,
)
_ioprio_set = syscall("ioprio_set", NR_ioprio_set, *[ctypes.c_int] * 3)
_ioprio_get = syscall("ioprio_get", NR_ioprio_get, *[ctypes.c_int] * 2)


def sched_setattr(pid: int, attributes: sched_attr) -> None:
    """Set policy and parameters of a thread; 0 is the caller. Sets ``size``."""
    attributes.size = ctypes.sizeof(sched_attr)
    _sched_setattr(pid, ctypes.addressof(attributes), 0)


def sched_getattr(pid: int) -> sched_attr:
    """Return policy and parameters of a thread; 0 is the caller."""
    attributes = sched_attr()
    _sched_getattr(pid, ctypes.addressof(attributes), ctypes.sizeof(sched_attr), 0)
    return attributes


def ioprio_set(pid: int, class_: int, priority: int) -> None:
    """Set the I/O class (a value of ``IOPRIO_CLASSES``) and priority of a thread."""
    _ioprio_set(IOPRIO_WHO_PROCESS, pid, class_ << IOPRIO_CLASS_SHIFT | priority)


def ioprio_get(pid: int) -> tuple[int, int]:
    """Return (class, priority) of a thread's I/O."""
    value = _ioprio_get(IOPRIO_WHO_PROCESS, pid)
    return value >> IOPRIO_CLASS_SHIFT, value & (1 << IOPRIO_CLASS_SHIFT) - 1
