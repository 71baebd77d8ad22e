"""What the kernel refuses while a build reads and writes files, as errors about that."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from jaula.errors import InvalidRequest, JaulaError, Unavailable

_SHOWN = 200  # characters of a path in messages
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OURS = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an ``OSError`` into what happened to ``what``, as in ``cannot copy to '/x'``.

    :raises Unavailable: the disk is full.
    :raises InvalidRequest: names and kinds of files are in the way.
    :raises JaulaError: the fault is the machine's.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise Unavailable(f"{what}: {reason}", hint="free some space and try again") from error
        if error.errno in _OURS:
            raise JaulaError(f"{what}: {reason}") from error
        if error.errno == errno.ENOTDIR:
            reason = "a file is in the way of a directory"
        raise InvalidRequest(f"{what}: {reason}") from error


def shown(path: str) -> str:
    """A path as messages have it: quoted, and cut where it is very long."""
    return repr(path if len(path) <= _SHOWN else path[:_SHOWN] + "...")
