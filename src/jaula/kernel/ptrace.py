"""Reading the system call filters of another process: ptrace(2).

Source: ptrace(2) (PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_SECCOMP_GET_FILTER); ``linux/ptrace.h``.

Facts about stopping: a seized process gets no signal and is not reparented, but it must be stopped
to be asked. A system call in which it waits is interrupted and begun anew by the kernel; the few
that never are (epoll_wait, semop, sigtimedwait) return EINTR, as after any stop and continuation.
A tracer that ends lets go of what it traces.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

from jaula.kernel.libc import errno_error, libc

PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_SECCOMP_GET_FILTER = 0x420C
PTRACE_EVENT_STOP = 128
WALL = 0x40000000  # __WALL: also children made by clone without SIGCHLD
INSTRUCTION = 8  # bytes of a struct sock_filter

_pointer = libc["ptrace"]
_pointer.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_pointer.restype = ctypes.c_long


def _ptrace(request: int, pid: int, addr: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result: int = _pointer(request, pid, addr, data)
    if result == -1:
        raise errno_error("ptrace", request, pid)
    return result


def seccomp_filters(pid: int, *, seconds: float = 0.5) -> tuple[bytes, ...]:
    """The classic BPF programs of a process, the newest first. Stops it for some 50 microseconds.

    Raises ``OSError``: EPERM where it is traced by another or may not be, EACCES without
    CAP_SYS_ADMIN or from within a filter, EIO on a kernel without CONFIG_CHECKPOINT_RESTORE,
    ETIMEDOUT where it does not stop (it is frozen, or waits for a device).
    """
    _ptrace(PTRACE_SEIZE, pid)
    deliver, stopped = 0, False
    try:
        _ptrace(PTRACE_INTERRUPT, pid)
        deliver = _wait(pid, seconds)
        stopped = True
        return tuple(_filters(pid))
    finally:
        if stopped:
            _ptrace(PTRACE_DETACH, pid, 0, deliver)


def _wait(pid: int, seconds: float) -> int:
    """Wait for the stop; the signal that it had better get when it goes on, or 0."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | WALL)
        if found == pid:
            if not os.WIFSTOPPED(status):
                raise OSError(errno.ESRCH, f"ptrace: process {pid} ended")
            return 0 if status >> 16 == PTRACE_EVENT_STOP else os.WSTOPSIG(status)
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, f"ptrace: process {pid} does not stop")
        time.sleep(0.0001)


def _filters(pid: int) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            count = _ptrace(PTRACE_SECCOMP_GET_FILTER, pid, len(found), 0)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # no more; no filter at all
                return found
            raise
        buffer = ctypes.create_string_buffer(count * INSTRUCTION)
        _ptrace(PTRACE_SECCOMP_GET_FILTER, pid, len(found), ctypes.addressof(buffer))
        found.append(buffer.raw)
