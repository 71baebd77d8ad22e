"""Translate ``OSError`` while a build reads and writes files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaula.errors import InvalidRequest
from jaula.storage.file_errors import file_error

_PATH_LIMIT = 200  # characters of a path in messages


@contextmanager
def translate_os_errors(what: str) -> Iterator[None]:
    """Translate an ``OSError`` into an error whose message starts with ``what``.

    ``what`` is, for example, ``cannot copy to '/x'``.

    :raises Unavailable: if the disk is full or read-only.
    :raises InvalidRequest: if names or types of files conflict.
    :raises JaulaError: if the fault is the machine's.
    """
    try:
        yield
    except NotADirectoryError as error:
        raise InvalidRequest(f"{what}: a file exists in place of a directory") from error
    except OSError as error:
        raise file_error(error, what) from error


def quote_path(path: str) -> str:
    """Return a path for a message: quoted, and truncated if it is long."""
    return repr(path if len(path) <= _PATH_LIMIT else path[:_PATH_LIMIT] + "...")
