"""The three standard descriptors of a process in a container."""

from __future__ import annotations

import errno
import os
import stat


def stdio_pipes(
    uid: int, gid: int, stdin_open: bool, theirs: list[int]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Pipes owned by the container's user, so that /dev/stdout can be opened again by name.

    The container's ends are appended to ``theirs``, which the caller closes after the fork; the
    shim's ends are not blocking, and -1 where stdin is closed.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC) if stdin_open else (-1, -1)
    if not stdin_open:
        reading = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    output, output_theirs = os.pipe2(os.O_CLOEXEC)
    error, error_theirs = os.pipe2(os.O_CLOEXEC)
    theirs.extend((reading, output_theirs, error_theirs))
    for fd in (output_theirs, error_theirs, *((reading,) if stdin_open else ())):
        os.fchown(fd, uid, gid)
    for fd in (writing, output, error):
        if fd >= 0:
            os.set_blocking(fd, False)
    return (reading, output_theirs, error_theirs), (writing, output, error)


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
