"""Files that decide what the engine does, and so may be nobody's but its user's."""

from __future__ import annotations

import errno
import os
import stat

from jaula.errors import InvalidRequest


def read(path: str, limit: int, what: str, *, required: bool) -> bytes | None:
    """A file of at most ``limit`` bytes; None where there is none and none is ``required``.

    ``what`` names it in errors. The descriptor that was judged is the one that is read.

    :raises InvalidRequest: it is not there, is no regular file, too large, or others can write it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENOENT and not required:
            return None
        raise InvalidRequest(f"{what} {path}: {error.strerror}") from None
    with open(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise InvalidRequest(f"{what} {path}: it is no regular file")
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise InvalidRequest(
                f"{what} {path}: others than the engine's user can write it",
                hint="chown root and chmod go-w",
            )
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidRequest(f"{what} {path}: it has more than {limit} bytes")
    return data
