"""Read the system call filters of another process: ptrace(2).

Source: ptrace(2) (PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_SECCOMP_GET_FILTER); ``linux/ptrace.h``.

Facts about stopping: a seized process gets no signal and keeps its parent, but it must be stopped
for the request. The kernel interrupts and restarts a system call in which it waits. A few calls
never restart (epoll_wait, semop, sigtimedwait) and return EINTR, as after any stop and continue.
The kernel detaches the tracees of a tracer that exits.
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
    """Return the classic BPF programs of a process, newest first.

    Stops the process for some 50 microseconds; ``seconds`` is the time to wait for the stop.

    :raises OSError: EPERM when another tracer is attached or tracing is not permitted, EACCES
        without CAP_SYS_ADMIN or from within a filter, EIO on a kernel without
        CONFIG_CHECKPOINT_RESTORE, ETIMEDOUT when the process does not stop (frozen, or in
        uninterruptible sleep).
    """
    _ptrace(PTRACE_SEIZE, pid)
    signum, stopped = 0, False
    try:
        _ptrace(PTRACE_INTERRUPT, pid)
        signum = _wait(pid, seconds)
        stopped = True
        return tuple(_filters(pid))
    finally:
        if stopped:
            _ptrace(PTRACE_DETACH, pid, 0, signum)


def _wait(pid: int, seconds: float) -> int:
    """Wait for the stop; return the signal to deliver when the process continues, or 0."""
    deadline = time.monotonic() + seconds
    while True:
        waited, status = os.waitpid(pid, os.WNOHANG | WALL)
        if waited == pid:
            if not os.WIFSTOPPED(status):
                raise OSError(errno.ESRCH, f"ptrace: process {pid} exited")
            return 0 if status >> 16 == PTRACE_EVENT_STOP else os.WSTOPSIG(status)
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, f"ptrace: process {pid} did not stop")
        time.sleep(0.0001)


def _filters(pid: int) -> list[bytes]:
    programs: list[bytes] = []
    while True:
        try:
            count = _ptrace(PTRACE_SECCOMP_GET_FILTER, pid, len(programs), 0)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # past the last; without a filter
                return programs
            raise
        buffer = ctypes.create_string_buffer(count * INSTRUCTION)
        _ptrace(PTRACE_SECCOMP_GET_FILTER, pid, len(programs), ctypes.addressof(buffer))
        programs.append(buffer.raw)
