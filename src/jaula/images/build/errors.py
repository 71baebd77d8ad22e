"""What the kernel refuses while a build reads and writes files, as errors about that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaula.errors import InvalidRequest
from jaula.storage.errors import file_error

_SHOWN = 200  # characters of a path in messages


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an ``OSError`` into what happened to ``what``, as in ``cannot copy to '/x'``.

    :raises Unavailable: the disk is full.
    :raises InvalidRequest: names and kinds of files are in the way.
    :raises JaulaError: the fault is the machine's.
    """
    try:
        yield
    except NotADirectoryError as error:
        raise InvalidRequest(f"{what}: a file is in the way of a directory") from error
    except OSError as error:
        raise file_error(error, what) from error


def shown(path: str) -> str:
    """A path as messages have it: quoted, and cut where it is very long."""
    return repr(path if len(path) <= _SHOWN else path[:_SHOWN] + "...")
