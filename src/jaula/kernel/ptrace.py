"""Read the system call filters of another process, and make system calls in it: ptrace(2).

Source: ptrace(2) (PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_SECCOMP_GET_FILTER, PTRACE_SETREGS);
``linux/ptrace.h``; ``struct user_regs_struct`` of ``sys/user.h`` (x86-64).

Facts about stopping: a seized process gets no signal and keeps its parent, but it must be stopped
for the request. The kernel interrupts and restarts a system call in which it waits. A few calls
never restart (epoll_wait, semop, sigtimedwait) and return EINTR, as after any stop and continue.
The kernel detaches the tracees of a tracer that exits.

Facts about the time of a stop: PTRACE_INTERRUPT makes the process runnable, and it stops when it
gets a processor. With the CPU limit of a container, or on a busy host, that can take seconds: a
cgroup that has used its quota waits for the next period, of a second at most, and for more if it
overran.
A frozen process, or one in uninterruptible sleep, is not runnable.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import time
from types import TracebackType

from jaula.kernel.libc import errno_error, libc

PTRACE_SINGLESTEP = 9
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_SECCOMP_GET_FILTER = 0x420C
PTRACE_EVENT_STOP = 128
WALL = 0x40000000  # __WALL: also children made by clone without SIGCHLD
INSTRUCTION = 8  # bytes of a struct sock_filter
POLL = 0.0001  # seconds between two calls of waitpid(2)
SLOW_POLL = 0.005  # seconds; for a process that waits for a processor
RUNNABLE_SECONDS = 15.0

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

    Stops the process for some 50 microseconds. ``seconds`` is the time to wait for the stop of a
    process that is not runnable; one that waits for a processor has ``RUNNABLE_SECONDS``.

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
    begin = time.monotonic()
    pause = POLL
    while True:
        waited, status = os.waitpid(pid, os.WNOHANG | WALL)
        if waited == pid:
            if not os.WIFSTOPPED(status):
                raise OSError(errno.ESRCH, f"ptrace: process {pid} exited")
            return 0 if status >> 16 == PTRACE_EVENT_STOP else os.WSTOPSIG(status)
        elapsed = time.monotonic() - begin
        if elapsed > seconds:
            if elapsed > RUNNABLE_SECONDS or not _runnable(pid):
                raise OSError(errno.ETIMEDOUT, f"ptrace: process {pid} did not stop")
            pause = SLOW_POLL
        time.sleep(pause)


def _runnable(pid: int) -> bool:
    """Return whether a process runs or waits for a processor (proc_pid_stat(5), state R)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].startswith(b"R")
    except (FileNotFoundError, ProcessLookupError):
        return False


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


class user_regs_struct(ctypes.Structure):
    """The general registers of a thread on x86-64."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in [
            "r15",
            "r14",
            "r13",
            "r12",
            "rbp",
            "rbx",
            "r11",
            "r10",
            "r9",
            "r8",
            "rax",
            "rcx",
            "rdx",
            "rsi",
            "rdi",
            "orig_rax",
            "rip",
            "cs",
            "eflags",
            "rsp",
            "ss",
            "fs_base",
            "gs_base",
            "ds",
            "es",
            "fs",
            "gs",
        ]
    ]


_SYSCALL = b"\x0f\x05"  # the instruction
_RED_ZONE = 128  # bytes below the stack pointer that a function may use (System V ABI)
_NO_SYSCALL = (1 << 64) - 1  # in orig_rax: the kernel restarts nothing
_MAX_ERRNO = 4095
SCRATCH = 1024  # bytes of the stack that a call may use


class RemoteCalls:
    """Make system calls in another process, which is stopped meanwhile. A context manager.

    The process must wait in a system call and have one thread: each call single-steps the
    instruction of the call in which it waits. Its registers and the part of its stack that is used
    are put back, and it waits on in its own call.

    :raises OSError: EPERM when it is traced, ENOSYS on another processor, EBUSY when it does not
        wait in a system call.
    """

    scratch: int  # address of memory of the process that may be written

    def __init__(self, pid: int, *, seconds: float = 2.0) -> None:
        if platform.machine() != "x86_64":
            raise OSError(errno.ENOSYS, "ptrace: system calls are made on x86-64 only")
        self._pid = pid
        self._seconds = seconds

    def __enter__(self) -> RemoteCalls:
        _ptrace(PTRACE_SEIZE, self._pid)
        try:
            _ptrace(PTRACE_INTERRUPT, self._pid)
            self._signum = _wait(self._pid, self._seconds)
            self._registers = self._get()
            self._memory = os.open(f"/proc/{self._pid}/mem", os.O_RDWR | os.O_CLOEXEC)
            try:
                self._instruction = self._registers.rip - len(_SYSCALL)
                if os.pread(self._memory, len(_SYSCALL), self._instruction) != _SYSCALL:
                    raise OSError(errno.EBUSY, "ptrace: the process is not in a system call")
                self.scratch = (int(self._registers.rsp) - _RED_ZONE - SCRATCH) & ~0xF
                self._stack = os.pread(self._memory, SCRATCH, self.scratch)
            except BaseException:
                os.close(self._memory)
                raise
        except BaseException:
            _ptrace(PTRACE_DETACH, self._pid)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            os.pwrite(self._memory, self._stack, self.scratch)
            self._set(self._registers)
        finally:
            os.close(self._memory)
            _ptrace(PTRACE_DETACH, self._pid, 0, self._signum)

    def _get(self) -> user_regs_struct:
        registers = user_regs_struct()
        _ptrace(PTRACE_GETREGS, self._pid, 0, ctypes.addressof(registers))
        return registers

    def _set(self, registers: user_regs_struct) -> None:
        _ptrace(PTRACE_SETREGS, self._pid, 0, ctypes.addressof(registers))

    def write(self, offset: int, data: bytes) -> int:
        """Write to the scratch memory and return the address."""
        if offset + len(data) > SCRATCH:
            raise OSError(errno.E2BIG, "ptrace: the scratch memory is too small")
        os.pwrite(self._memory, data, self.scratch + offset)
        return self.scratch + offset

    def read(self, offset: int, length: int) -> bytes:
        """Read from the scratch memory."""
        return os.pread(self._memory, length, self.scratch + offset)

    def call(self, name: str, number: int, *arguments: int) -> int:
        """Make a system call and return its result.

        :raises OSError: with the error of the call.
        """
        registers = user_regs_struct.from_buffer_copy(self._registers)
        registers.rax, registers.orig_rax = number, _NO_SYSCALL
        registers.rip = self._instruction
        for register, value in zip(
            ("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments, strict=False
        ):
            setattr(registers, register, value & 0xFFFF_FFFF_FFFF_FFFF)
        self._set(registers)
        _ptrace(PTRACE_SINGLESTEP, self._pid)
        _wait(self._pid, self._seconds)
        result = int(ctypes.c_int64(self._get().rax).value)
        if -_MAX_ERRNO <= result < 0:
            raise OSError(-result, f"{name} in process {self._pid}: {os.strerror(-result)}")
        return result
