"""A process that was made: what its maker has of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NoReturn

import msgspec

from jaula.kernel import mounts, namespaces
from jaula.kernel.namespaces import CLONE
from jaula.runtime.interfaces import Cgroup
from jaula.spec.runtime import Linux


class ProcessHandle(msgspec.Struct, frozen=True):
    """A process that runs. Descriptors are -1 where there is none; they are the maker's ends."""

    pid: int
    master: int = -1
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    cgroup: str = ""
    memory_limit: int = 0  # bytes, 0: none
    warnings: tuple[str, ...] = ()  # limits that are not in force, and why


def memory_limit(linux: Linux) -> int:
    """The limit that a spec sets, in bytes; 0 where it sets none."""
    memory = linux.resources.memory if linux.resources else None
    return memory.limit if memory and memory.limit and memory.limit > 0 else 0


def clone_into(
    cgroup: Cgroup, keep: list[int], refused: Callable[[OSError], NoReturn]
) -> tuple[int, int]:
    """Fork a child that is in the cgroup when this returns in it: (pid, pidfd) or (0, -1).

    On v2 it is born there; on v1 it moves itself by descriptors, which are added to ``keep``, and
    calls ``refused`` where it may not.
    """
    directory = cgroup.directory_fd()
    entries: tuple[int, ...] = ()
    if directory is None:
        entries = cgroup.entry()
        keep.extend(entries)
    pid, pidfd = namespaces.clone3(CLONE(0), cgroup=directory)
    if pid == 0:
        try:
            for entry in entries:
                os.write(entry, b"0")
        except OSError as error:
            refused(error)
    return pid, pidfd


class FdStack:
    """Descriptors that are closed together."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        self.fds.append(fd)
        return fd

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


def stdio_pipes(
    uid: int,
    gid: int,
    stdin_open: bool,
    theirs: list[int],
    *,
    context: str | None = None,
    host_null: bool = True,
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Pipes owned by the container's user, so that /dev/stdout can be opened again by name.

    The container's ends are appended to ``theirs``, which the caller closes after the fork; the
    shim's ends are not blocking, and -1 where stdin is closed. ``context`` is an SELinux label for
    files, which the pipes get. Without ``host_null`` a closed stdin is a pipe at its end and not
    the host's null device, for runtimes that give whatever they get to the container's user.
    """
    (reading, writing), (output, output_theirs), (error, error_theirs) = _pipes(context)
    given = [reading, output_theirs, error_theirs]
    if not stdin_open:
        os.close(writing)
        writing = -1
        if host_null:
            os.close(given.pop(0))
            reading = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    theirs.extend((reading, output_theirs, error_theirs))
    for fd in given:
        os.fchown(fd, uid, gid)
    for fd in (writing, output, error):
        if fd >= 0:
            os.set_blocking(fd, False)
    return (reading, output_theirs, error_theirs), (writing, output, error)


def _pipes(context: str | None) -> list[tuple[int, int]]:
    """Three pipes: (reading end, writing end)."""
    if context is None:
        return [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
    tree = mounts.new_filesystem("tmpfs", (("mode", "0700"), ("context", context)))
    try:
        return [_named_pipe(tree, name) for name in ("stdin", "stdout", "stderr")]
    finally:
        os.close(tree)


def _named_pipe(directory: int, name: str) -> tuple[int, int]:
    os.mkfifo(name, 0o600, dir_fd=directory)
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    reading = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=directory)
    writing = os.open(name, os.O_WRONLY | flags, dir_fd=directory)
    os.set_blocking(reading, True)
    return reading, writing


def give_to(uid: int, fds: tuple[int, int, int]) -> None:
    """Make a process's user the owner of descriptors that it inherits from the caller.

    So /dev/stdout can be opened again by name. The null device stays the host's, and what cannot
    change its owner (a file on a read-only or foreign file system) stays as it is.
    """
    for fd in fds:
        facts = os.fstat(fd)
        if facts.st_uid == uid or (
            stat.S_ISCHR(facts.st_mode) and facts.st_rdev == os.makedev(1, 3)
        ):
            continue
        try:
            os.fchown(fd, uid, -1)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                raise
