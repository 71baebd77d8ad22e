"""Namespaces: clone3(2), unshare(2), setns(2), user_namespaces(7).

Facts about forking: clone3 is called raw, so Python's after-fork hooks do not run in the child.
That is safe only in a process with one thread, which the zygote and the shim are.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
from collections.abc import Callable, Sequence
from typing import TypeVar

from jaula.kernel.libc import IntFlag, NR_clone3, function, syscall
from jaula.kernel.process_calls import PR_SET_PDEATHSIG, prctl

Result = TypeVar("Result")


class CLONE(IntFlag):
    """Flags of clone3, unshare and setns (include/uapi/linux/sched.h)."""

    NEWTIME = 0x00000080
    FS = 0x00000200
    PIDFD = 0x00001000
    PARENT = 0x00008000
    PARENT_SETTID = 0x00100000
    NEWNS = 0x00020000
    NEWCGROUP = 0x02000000
    NEWUTS = 0x04000000
    NEWIPC = 0x08000000
    NEWUSER = 0x10000000
    NEWPID = 0x20000000
    NEWNET = 0x40000000
    INTO_CGROUP = 0x200000000


KINDS: dict[str, CLONE] = {
    "user": CLONE.NEWUSER,
    "mnt": CLONE.NEWNS,
    "pid": CLONE.NEWPID,
    "net": CLONE.NEWNET,
    "ipc": CLONE.NEWIPC,
    "uts": CLONE.NEWUTS,
    "cgroup": CLONE.NEWCGROUP,
    "time": CLONE.NEWTIME,
}
"""Entries of /proc/<pid>/ns and the clone flag of each."""

NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h


def nstype(fd: int) -> CLONE:
    """Return the type of the namespace of a descriptor.

    :raises OSError: ENOTTY when the descriptor does not refer to a namespace.
    """
    return CLONE(fcntl.ioctl(fd, NS_GET_NSTYPE))


class clone_args(ctypes.Structure):
    """struct clone_args, version 2 (88 bytes)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


_clone3 = syscall("clone3", NR_clone3, ctypes.c_void_p, ctypes.c_size_t)
_unshare = function("unshare", ctypes.c_int)
_setns = function("setns", ctypes.c_int, ctypes.c_int)


class SharedPid:
    """A pid in memory that this process shares with its forks.

    clone3 writes it before the new process runs. So the pid is known to the parent of a process
    that is killed right after its clone3.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ctypes.sizeof(ctypes.c_int))
        self._pid = ctypes.c_int.from_buffer(self._memory)

    @property
    def address(self) -> int:
        """Return the address, which is the same in every fork."""
        return ctypes.addressof(self._pid)

    @property
    def value(self) -> int:
        """Return the pid; 0 if no process was cloned."""
        return self._pid.value


def clone3(
    flags: CLONE, *, cgroup: int | None = None, shared_pid: SharedPid | None = None
) -> tuple[int, int]:
    """Fork into new namespaces: return ``(pid, pidfd)`` in the parent, ``(0, -1)`` in the child.

    The pidfd is close-on-exec. ``cgroup`` is a descriptor of a cgroup v2 directory. The kernel
    writes the pid to ``shared_pid`` as well.
    """
    pidfd = ctypes.c_int(-1)
    args = clone_args(flags=flags | CLONE.PIDFD, pidfd=ctypes.addressof(pidfd))
    if not flags & CLONE.PARENT:
        args.exit_signal = signal.SIGCHLD
    if cgroup is not None:
        args.flags |= CLONE.INTO_CGROUP
        args.cgroup = cgroup
    if shared_pid is not None:
        args.flags |= CLONE.PARENT_SETTID
        args.parent_tid = shared_pid.address
    pid = _clone3(ctypes.addressof(args), ctypes.sizeof(args))
    return (pid, pidfd.value) if pid else (0, -1)


def unshare(flags: CLONE) -> None:
    """Move the calling process into new namespaces."""
    _unshare(int(flags))


def setns(fd: int, flags: CLONE | int = 0) -> None:
    """Join the namespace of ``fd``; with a pidfd, join that process's namespaces in ``flags``."""
    _setns(fd, int(flags))


def in_mount_namespace(fd: int, work: Callable[[], Result]) -> Result:
    """Return the result of ``work`` in the mount namespace ``fd``, and come back from it.

    Root and working directory of the calling thread are those of its namespace afterwards. The
    thread shares them with no other thread: setns(2) refuses that.
    """
    own = open_namespace("thread-self", "mnt")
    try:
        setns(fd, CLONE.NEWNS)
        try:
            return work()
        finally:
            setns(own, CLONE.NEWNS)
    finally:
        os.close(own)


_NS_GET_USERNS = 0xB701


def owner(fd: int) -> int:
    """Return a descriptor of the user namespace that owns a namespace: ioctl_nsfs(2)."""
    owner_fd = fcntl.ioctl(fd, _NS_GET_USERNS)
    os.set_inheritable(owner_fd, False)
    return owner_fd


def open_namespace(pid: int | str, kind: str) -> int:
    """Open a namespace of a process; ``kind`` is an entry of /proc/<pid>/ns."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def namespace_id(pid: int | str, kind: str) -> str:
    """Return the kernel's name of the namespace, such as ``net:[4026531840]``."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def map_text(mappings: Sequence[tuple[int, int, int]]) -> bytes:
    """Format (inside, outside, length) rows for uid_map and gid_map."""
    return b"".join(b"%d %d %d\n" % row for row in mappings)


def write_maps(
    pid: int,
    uids: Sequence[tuple[int, int, int]],
    gids: Sequence[tuple[int, int, int]],
) -> None:
    """Write the id maps of a process in a new user namespace, each in one write as required."""
    for name, rows in (("uid_map", uids), ("gid_map", gids)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, map_text(rows))
        finally:
            os.close(fd)


def create_namespaces(
    flags: CLONE,
    uids: Sequence[tuple[int, int, int]],
    gids: Sequence[tuple[int, int, int]],
    *,
    write: Callable[[int, list[tuple[int, int, int]], list[tuple[int, int, int]]], None]
    | None = None,
) -> dict[str, int]:
    """Create a user namespace with these id maps, and the namespaces in ``flags`` owned by it.

    Return descriptors by /proc/<pid>/ns name, including ``user``. The helper process ends with this
    call, and also when the caller dies. ``write`` replaces the direct write of the maps, for
    example with newuidmap(1).
    """
    parent = os.getpid()
    pid, pidfd = clone3(CLONE.NEWUSER | flags)
    if pid == 0:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() not in (parent, 0):  # 0: the parent is outside our pid namespace
            os._exit(1)
        while True:
            signal.pause()
    try:
        if write is None:
            write_maps(pid, uids, gids)
        else:
            write(pid, list(uids), list(gids))
        return {
            k: open_namespace(pid, k) for k, bit in KINDS.items() if bit & (flags | CLONE.NEWUSER)
        }
    finally:
        os.close(pidfd)
        _end(pid)


def _end(pid: int) -> None:
    """Kill and reap a child that only held namespaces."""
    os.kill(pid, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # a caller that ignores SIGCHLD leaves nothing to reap


def create_in_userns(user_fd: int, flags: CLONE) -> dict[str, int]:
    """Create the namespaces in ``flags``, owned by an existing user namespace.

    Return descriptors by /proc/<pid>/ns name. The helper process ends with this call.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid, pidfd = clone3(CLONE(0))
    if pid == 0:
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            setns(user_fd, CLONE.NEWUSER)
            unshare(flags)
            os.write(write_fd, b"\0")
        except OSError as error:
            os.write(write_fd, (error.errno or 0).to_bytes(1, "big"))
        while os.getppid() in (parent, 0):
            signal.pause()
        os._exit(1)
    try:
        os.close(write_fd)
        poll = select.poll()
        poll.register(read_fd, select.POLLIN)
        if not poll.poll(_CREATE_TIMEOUT * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "cannot create namespaces: the helper hangs")
        answer = os.read(read_fd, 1)
        if answer != b"\0":
            number = answer[0] if answer else 0
            raise OSError(number, f"cannot create namespaces: {os.strerror(number)}")
        return {k: open_namespace(pid, k) for k, bit in KINDS.items() if bit & flags}
    finally:
        os.close(read_fd)
        os.close(pidfd)
        _end(pid)


_CREATE_TIMEOUT = 10.0  # seconds for a helper to create a namespace


WHOLE_ID_MAP = [0, 0, 0xFFFFFFFF]
"""The id map of the initial user namespace: every id maps to itself."""

_initial: list[bool] = []


def is_initial_userns() -> bool:
    """Return whether the process is in the initial user namespace: every id maps to itself.

    Root then has the rights of the host's root. The answer is cached: a process that enters another
    user namespace executes itself again afterwards.
    """
    if not _initial:
        with open("/proc/self/uid_map", "rb") as file:
            rows = [[int(number) for number in line.split()] for line in file]
        _initial.append(rows == [WHOLE_ID_MAP])
    return _initial[0]
