"""Processes: execve(2), pidfd_open(2), prctl(2), personality(2), close_range(2), waitid(2) results.

Facts about a process that exits before execve: its descriptors are closed as by an execve. The flag
PF_FORKNOEXEC (include/linux/sched.h), the ninth field of proc_pid_stat(5), tells them apart. execve
clears it before it closes descriptors, and a zombie keeps it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from jaula.kernel.libc import (
    NR_close_range,
    NR_pidfd_getfd,
    NR_pidfd_open,
    NR_pidfd_send_signal,
    function,
    syscall,
)

PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PER_LINUX = 0x0000  # include/uapi/linux/personality.h
PER_LINUX32 = 0x0008
PF_FORKNOEXEC = 0x40
CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4

_prctl = function("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)
_close_range = syscall("close_range", NR_close_range, *[ctypes.c_uint] * 3)
_pidfd_open = syscall("pidfd_open", NR_pidfd_open, ctypes.c_int, ctypes.c_uint)
_pidfd_getfd = syscall("pidfd_getfd", NR_pidfd_getfd, ctypes.c_int, ctypes.c_int, ctypes.c_uint)
_pidfd_send_signal = syscall(
    "pidfd_send_signal",
    NR_pidfd_send_signal,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint,
)
_execve = function("execve", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)
_setfsuid = function("setfsuid", ctypes.c_uint)
_setfsgid = function("setfsgid", ctypes.c_uint)
_sethostname = function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)


def prctl(option: int, *args: int) -> int:
    """Call prctl(2); missing arguments are 0."""
    return _prctl(option, *(*args, 0, 0, 0, 0)[:4])


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent exits (PR_SET_PDEATHSIG).

    A change of credentials, also of the file system ids, resets it: call this again afterwards.
    ``parent`` is the parent's pid; if it has exited already, this process exits at once.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def parent_death_signal() -> int:
    """Return the signal that this process gets when its parent exits; 0: none."""
    number = ctypes.c_int(0)
    prctl(PR_GET_PDEATHSIG, ctypes.addressof(number))
    return number.value


_personality = function("personality", ctypes.c_ulong)


def personality(persona: int) -> int:
    """Set the execution domain, personality(2); 0xffffffff only reads. Return the previous one."""
    return _personality(persona)


_sched_setaffinity = function("sched_setaffinity", ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p)
_ALL_CPUS = b"\xff" * 1024  # 8192 CPUs, the maximum of a kernel


def reset_affinity() -> None:
    """Let the calling thread run on every CPU that its cpuset has, sched_setaffinity(2)."""
    _sched_setaffinity(0, len(_ALL_CPUS), _ALL_CPUS)


def set_name(name: str) -> None:
    """Set the process name that ps shows; the kernel keeps 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from ``first`` on as close-on-exec."""
    _close_range(first, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)


def close_fds_except(keep: Iterable[int]) -> None:
    """Close every descriptor except 0 to 2 and those in ``keep``."""
    first = 3
    for fd in sorted({fd for fd in keep if fd > 2}):
        if fd > first:
            _close_range(first, fd - 1, 0)
        first = fd + 1
    _close_range(first, 0xFFFFFFFF, 0)


def open_fds() -> tuple[int, ...]:
    """Return the descriptors of this process, in ascending order."""
    listed = sorted(map(int, os.listdir("/proc/self/fd")))
    return tuple(fd for fd in listed if _is_open(fd))  # one of the listing itself is closed


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Execve:
    """A prepared execve(2), which makes no other system call and allocates no memory of note.

    ``environment`` is by name.
    """

    def __init__(
        self, path: bytes, arguments: Sequence[bytes], environment: Mapping[bytes, bytes]
    ) -> None:
        self.path = path
        entries = [name + b"=" + value for name, value in environment.items()]
        self._arguments = (ctypes.c_char_p * (len(arguments) + 1))(*arguments)
        self._environment = (ctypes.c_char_p * (len(entries) + 1))(*entries)
        self._addresses = (
            ctypes.addressof(self._arguments),
            ctypes.addressof(self._environment),
        )

    def __call__(self) -> None:
        """Execute the program.

        :raises OSError: when the kernel refuses it.
        """
        _execve(self.path, *self._addresses)


def executed(pid: int) -> bool:
    """Return whether a process has executed a program since it was cloned.

    A process that was reaped meanwhile counts as one that has.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return not int(fields[6]) & PF_FORKNOEXEC


def pidfd_open(pid: int) -> int:
    """Return a descriptor of a process, close-on-exec."""
    return _pidfd_open(pid, 0)


def pid_of(pidfd: int) -> int:
    """Return the pid of a process in this pid namespace.

    :raises ProcessLookupError: when it has been reaped.
    """
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "Pid" and int(value) > 0:
                return int(value)
    raise ProcessLookupError(errno.ESRCH, "the process of a pidfd has been reaped")


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Return a copy of a descriptor of another process: pidfd_getfd(2), Linux 5.6."""
    return _pidfd_getfd(pidfd, fd, 0)


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """Send a signal to the process of a pidfd."""
    _pidfd_send_signal(pidfd, signum, None, 0)


def kill_if(pid: int, condition: Callable[[int], bool]) -> bool:
    """Kill a process if ``condition`` holds for it; see :func:`signal_if`."""
    return signal_if(pid, signal.SIGKILL, condition)


def signal_if(pid: int, signum: int, condition: Callable[[int], bool]) -> bool:
    """Signal a process if ``condition`` holds for it; its pid cannot be reused meanwhile.

    Return whether the signal was sent. It is not sent to a process that has exited, or that
    belongs to another user.
    """
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not condition(pid):
            return False
        pidfd_send_signal(pidfd, signum)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True


def fd_name(pid: int | str, fd: int | str, proc_root: str = "/proc") -> str:
    """Return the kernel's name of an open file of a process: proc_pid_fd(5).

    It is empty if it is longer than a page, which any process can bring about.

    :raises OSError: when the file was closed, the process has exited or belongs to another user.
    """
    try:
        return os.readlink(f"{proc_root}/{pid}/fd/{fd}")
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return ""
        raise


def setfsuid(uid: int) -> int:
    """Set the uid for file system checks and return the previous one.

    The call never fails, so read the id back.
    """
    return _setfsuid(uid)


def setfsgid(gid: int) -> int:
    """Set the gid for file system checks as :func:`setfsuid` does the uid."""
    return _setfsgid(gid)


def sethostname(name: str) -> None:
    """Set the host name: sethostname(2)."""
    encoded = name.encode()
    _sethostname(encoded, len(encoded))


def setdomainname(name: str) -> None:
    """Set the NIS domain name: setdomainname(2)."""
    encoded = name.encode()
    _setdomainname(encoded, len(encoded))


def exit_code(status: int) -> tuple[int, int]:
    """Convert a wait status to (exit code as in shells and Docker, signal or 0)."""
    code = os.waitstatus_to_exitcode(status)
    return (128 - code, -code) if code < 0 else (code, 0)


def run_and_exit(name: str, function: Callable[[], object]) -> NoReturn:
    """Call the function in a forked process, then exit: with 0, or 1 if it raised an error.

    The error is written to standard error, after ``name``. No handler, buffer or ``finally`` block
    that the process inherited from its parent runs.
    """
    code = 0
    try:
        function()
    except BaseException as error:
        code = 1
        os.write(2, f"{name}: {type(error).__name__}: {error}\n".encode())
        raise
    finally:
        os._exit(code)


def reset_signals() -> None:
    """Set every signal to its default disposition and empty the mask, as a new program expects.

    The interpreter knows the dispositions: those that it inherited, and those that it has set.
    """
    for number in range(1, signal.NSIG):
        if signal.getsignal(number) is not signal.SIG_DFL:
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue  # signals that glibc reserves
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
