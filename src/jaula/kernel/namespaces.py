"""Namespaces: clone3(2), unshare(2), setns(2), user_namespaces(7).

Facts about forking here: clone3 is called raw, so Python's own after-fork hooks do not run in the
child. That is sound only in a process that has one thread, which zygote and shim are.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from collections.abc import Callable, Sequence

from jaula.kernel.libc import IntFlag, NR_clone3, function, syscall
from jaula.kernel.process import PR_SET_PDEATHSIG, prctl


class CLONE(IntFlag):
    """Flags of clone3, unshare and setns (include/uapi/linux/sched.h)."""

    NEWTIME = 0x00000080
    FS = 0x00000200
    PIDFD = 0x00001000
    PARENT = 0x00008000
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
"""Entries of /proc/<pid>/ns and the flag of each."""

NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h


def nstype(fd: int) -> CLONE:
    """The type of the namespace that a descriptor refers to; ENOTTY where it is none."""
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


def clone3(flags: CLONE, *, cgroup: int | None = None) -> tuple[int, int]:
    """Fork with new namespaces: ``(pid, pidfd)`` in the parent, ``(0, -1)`` in the child.

    The descriptor is close-on-exec. ``cgroup`` is a cgroup v2 directory descriptor.
    """
    pidfd = ctypes.c_int(-1)
    args = clone_args(flags=flags | CLONE.PIDFD, pidfd=ctypes.addressof(pidfd))
    if not flags & CLONE.PARENT:
        args.exit_signal = signal.SIGCHLD
    if cgroup is not None:
        args.flags |= CLONE.INTO_CGROUP
        args.cgroup = cgroup
    pid = _clone3(ctypes.addressof(args), ctypes.sizeof(args))
    return (pid, pidfd.value) if pid else (0, -1)


def unshare(flags: CLONE) -> None:
    """Move the calling process into new namespaces."""
    _unshare(int(flags))


def setns(fd: int, flags: CLONE | int = 0) -> None:
    """Join the namespace of ``fd``, or with a pidfd the namespaces named by ``flags``."""
    _setns(fd, int(flags))


def open_namespace(pid: int | str, kind: str) -> int:
    """A descriptor of a process's namespace; ``kind`` is an entry of /proc/<pid>/ns."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def namespace_id(pid: int | str, kind: str) -> str:
    """What the kernel calls the namespace, such as ``net:[4026531840]``."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def map_text(mappings: Sequence[tuple[int, int, int]]) -> bytes:
    """Lines of (inside, outside, length) for uid_map and gid_map."""
    return b"".join(b"%d %d %d\n" % row for row in mappings)


def write_maps(
    pid: int,
    uids: Sequence[tuple[int, int, int]],
    gids: Sequence[tuple[int, int, int]],
) -> None:
    """Write the id maps of a process in a new user namespace; one write each, as required."""
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
    """Make a user namespace with these maps, and the others in ``flags`` owned by it.

    Returns descriptors by /proc/<pid>/ns name, ``user`` among them. No process stays behind, also
    when the caller dies meanwhile. ``write`` writes the maps in another way than directly.
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
    """Make the namespaces in ``flags``, owned by an existing user namespace.

    Returns descriptors by /proc/<pid>/ns name. No process stays behind.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid, pidfd = clone3(CLONE(0))
    if pid == 0:
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            setns(user_fd, CLONE.NEWUSER)
            unshare(flags)
            os.write(writing, b"\0")
        except OSError as error:
            os.write(writing, (error.errno or 0).to_bytes(1, "big"))
        while os.getppid() in (parent, 0):
            signal.pause()
        os._exit(1)
    try:
        os.close(writing)
        answer = os.read(reading, 1)
        if answer != b"\0":
            number = answer[0] if answer else 0
            raise OSError(number, f"namespaces within another's: {os.strerror(number)}")
        return {k: open_namespace(pid, k) for k, bit in KINDS.items() if bit & flags}
    finally:
        os.close(reading)
        os.close(pidfd)
        _end(pid)


WHOLE_ID_MAP = [0, 0, 0xFFFFFFFF]
"""The map of the initial user namespace: every id is itself."""

_initial: list[bool] = []


def is_initial_userns() -> bool:
    """Whether every id is itself here, so that a root has the host root's rights.

    Asked once: who enters another namespace executes itself anew afterwards.
    """
    if not _initial:
        with open("/proc/self/uid_map", "rb") as file:
            rows = [[int(number) for number in line.split()] for line in file]
        _initial.append(rows == [WHOLE_ID_MAP])
    return _initial[0]
