"""Translate ``OSError`` while a build reads and writes files."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from jaula.errors import InvalidRequest, JaulaError, Unavailable

_PATH_LIMIT = 200  # characters of a path in messages
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MACHINE = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS)


@contextmanager
def translate_os_errors(what: str) -> Iterator[None]:
    """Translate an ``OSError`` into an error whose message starts with ``what``.

    ``what`` is, for example, ``cannot copy to '/x'``.

    :raises Unavailable: if the disk is full.
    :raises InvalidRequest: if names or types of files conflict.
    :raises JaulaError: if the fault is the machine's.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise Unavailable(f"{what}: {reason}", hint="free some space and try again") from error
        if error.errno in _MACHINE:
            raise JaulaError(f"{what}: {reason}") from error
        if error.errno == errno.ENOTDIR:
            reason = "a file exists in place of a directory"
        raise InvalidRequest(f"{what}: {reason}") from error


def quote_path(path: str) -> str:
    """Return a path for a message: quoted, and truncated if it is long."""
    return repr(path if len(path) <= _PATH_LIMIT else path[:_PATH_LIMIT] + "...")
