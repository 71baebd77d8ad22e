"""The three standard descriptors of a process in a container.

Facts about SELinux: a pipe has the label of the process that made it. With categories, no container
may then write to a pipe of an engine whose level has all of them, as an administrator's has. So a
process with a label gets named pipes, on a file system of the maker's own, with a label that it may
use; what has their descriptors sees no difference.
"""

from __future__ import annotations

import errno
import os
import stat

from jaula.kernel import mounts


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
