"""Create a process: clone it into its cgroup, with stdio and the descriptors that it needs.

Facts about SELinux: a pipe has the label of the process that created it. With MCS categories no
container may write to a pipe of an engine whose level has all categories, as an administrator's
has. So a process with a label gets named pipes instead, on a tmpfs of the parent, with a label that
it may use. A process that holds their descriptors sees no difference.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NoReturn

import msgspec

from jaula.kernel import mounts, namespaces
from jaula.kernel.namespaces import CLONE
from jaula.runtime.interfaces import AttachCgroup
from jaula.spec.runtime_spec import Linux

Stdio = tuple[int, int, int]
"""Descriptors of stdin, stdout and stderr; -1: none."""


class ProcessHandle(msgspec.Struct, frozen=True):
    """A created process, with the parent's ends of its stdio (-1: none)."""

    pid: int
    master: int = -1
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    cgroup: str = ""
    memory_limit: int = 0  # bytes; 0: unlimited
    warnings: tuple[str, ...] = ()  # limits that could not be applied, and why


def memory_limit(linux: Linux) -> int:
    """Return the memory limit of a spec in bytes; 0 if it sets none."""
    memory = linux.resources.memory if linux.resources else None
    return memory.limit if memory and memory.limit and memory.limit > 0 else 0


def clone_into(
    cgroup: AttachCgroup, entry_fds: list[int], on_error: Callable[[OSError], NoReturn]
) -> tuple[int, int]:
    """Fork a child into a cgroup: return (pid, pidfd) in the parent, (0, -1) in the child.

    On v2 the kernel creates the child in the cgroup. On v1 the child moves itself by descriptors,
    which are appended to ``entry_fds``; it calls ``on_error`` when it may not.
    """
    directory = cgroup.directory_fd()
    entries = cgroup.open_attach_fds(cloned=directory is not None)
    entry_fds.extend(entries)
    pid, pidfd = namespaces.clone3(CLONE(0), cgroup=directory)
    if pid == 0:
        try:
            for entry in entries:
                os.write(entry, b"0")
        except OSError as error:
            on_error(error)
    return pid, pidfd


class FdStack:
    """Descriptors that are needed until a process has been created; closed together."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        """Add a descriptor and return it."""
        self.fds.append(fd)
        return fd

    def close(self) -> None:
        """Close all descriptors, last first."""
        while self.fds:
            os.close(self.fds.pop())


def stdio_pipes(
    uid: int,
    gid: int,
    stdin_open: bool,
    child_fds: list[int],
    *,
    context: str | None = None,
    host_null: bool = True,
) -> tuple[Stdio, Stdio]:
    """Create pipes owned by the container's user, who can then open /dev/stdout by name.

    The container's ends are appended to ``child_fds``, which the caller closes after the fork. Our
    ends are non-blocking, and -1 for a closed stdin. ``context`` is an SELinux label for the pipes.
    A closed stdin is the host's null device, which the process replaces by the container's own.
    Without ``host_null`` it is a pipe at its end, for runtimes that change the owner of every
    descriptor to the container's user.
    """
    (stdin_read, stdin_write), (stdout_read, stdout_write), (stderr_read, stderr_write) = _pipes(
        context
    )
    owned = [stdin_read, stdout_write, stderr_write]
    if not stdin_open:
        os.close(stdin_write)
        stdin_write = -1
        if host_null:
            os.close(owned.pop(0))
            stdin_read = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    child_fds.extend((stdin_read, stdout_write, stderr_write))
    for fd in owned:
        os.fchown(fd, uid, gid)
    for fd in (stdin_write, stdout_read, stderr_read):
        if fd >= 0:
            os.set_blocking(fd, False)
    return (stdin_read, stdout_write, stderr_write), (stdin_write, stdout_read, stderr_read)


def _pipes(context: str | None) -> list[tuple[int, int]]:
    """Create three pipes; return their (read end, write end)."""
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
    read_end = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=directory)
    write_end = os.open(name, os.O_WRONLY | flags, dir_fd=directory)
    os.set_blocking(read_end, True)
    return read_end, write_end


def give_to(uid: int, fds: Stdio) -> None:
    """Make ``uid`` the owner of descriptors that a process inherits from the caller.

    The user can then open /dev/stdout by name. The host's null device is left unchanged, and the
    process replaces it by the container's own. A file that cannot change its owner (on a read-only
    or foreign file system) is left unchanged.
    """
    for fd in fds:
        st = os.fstat(fd)
        if st.st_uid == uid or (stat.S_ISCHR(st.st_mode) and st.st_rdev == os.makedev(1, 3)):
            continue
        try:
            os.fchown(fd, uid, -1)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                raise
