"""Read the files of an image by descriptors below its root, within a budget.

Symbolic links are followed only inside the root (openat2(2), ``RESOLVE_IN_ROOT``). A directory walk
follows none. Each directory is opened by descriptor, one at a time, so the depth does not cost
memory and path length is not limited.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from time import monotonic

from jaula.errors import InvalidRequest
from jaula.kernel import paths
from jaula.kernel.paths import RESOLVE

MAX_ENTRIES = 3_000_000
MAX_BYTES = 1 << 30  # of all files read
MAX_SECONDS = 120
_MAX_DEPTH = 64  # directories; no package database is that deep
_ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EINVAL, errno.ENXIO}
)


class RootfsReader:
    """The root of an image. Every method raises :class:`InvalidRequest` beyond the budget."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._bytes = MAX_BYTES
        self._entries = MAX_ENTRIES
        self._ends = monotonic() + MAX_SECONDS

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the content of a regular file, or None if there is no regular file.

        :raises InvalidRequest: if it is larger than ``limit`` bytes.
        """
        try:
            data = paths.read_file_in_root(self._root, path, min(limit, self._bytes))
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            if error.errno == errno.EFBIG:
                raise InvalidRequest(f"{printable(path)} is larger than {limit} bytes") from None
            raise
        self._bytes -= len(data)
        return data

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory, empty if it is absent."""
        try:
            fd = paths.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise
        try:
            return sorted(name for name, _ in self._scan(fd))
        finally:
            os.close(fd)

    def directories(self) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
        """Yield every directory with its entries: names, and whether each is a directory."""
        pending = [("", 0)]
        while pending:
            path, depth = pending.pop()
            try:
                fd = paths.openat2(
                    self._root,
                    path or ".",
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW,
                    resolve=RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_XDEV,
                )
            except OSError as error:
                if error.errno in (*_ABSENT, errno.EXDEV, errno.ENAMETOOLONG):
                    continue
                raise
            try:
                children = sorted(self._scan(fd))
            finally:
                os.close(fd)
            yield path, children
            if depth < _MAX_DEPTH:
                below = [name for name, is_directory in children if is_directory]
                pending += [(f"{path}/{n}".lstrip("/"), depth + 1) for n in reversed(below)]

    def _scan(self, fd: int) -> Iterator[tuple[str, bool]]:
        with os.scandir(fd) as entries:
            for entry in entries:
                self._entries -= 1
                if self._entries < 0:
                    raise InvalidRequest(f"the image has more than {MAX_ENTRIES} files")
                if self._entries % 1024 == 0 and monotonic() > self._ends:
                    raise InvalidRequest(
                        f"scanning the files of the image took longer than {MAX_SECONDS} seconds"
                    )
                yield entry.name, entry.is_dir(follow_symlinks=False)


def printable(path: str) -> str:
    """Return a path in printable form."""
    return "".join(c if c.isprintable() else "?" for c in path[:200])
