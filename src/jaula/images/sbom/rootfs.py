"""The files of an image, by descriptors below its root and within a budget.

A symbolic link is followed inside the root only (openat2(2), ``RESOLVE_IN_ROOT``); a walk follows
none. Directories are entered one at a time by descriptor, so depth costs no memory and no path is
longer than a name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from time import monotonic

from jaula.errors import InvalidRequest
from jaula.kernel import paths
from jaula.kernel.paths import RESOLVE

MOST_ENTRIES = 3_000_000
MOST_BYTES = 1 << 30  # of all files that are read
MOST_SECONDS = 120
_DEEPEST = 64  # directories; packages lie far above
_ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EINVAL, errno.ENXIO}
)


class RootfsReader:
    """The root of an image. Raises :class:`InvalidRequest` where the budget is used up."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._bytes = MOST_BYTES
        self._entries = MOST_ENTRIES
        self._ends = monotonic() + MOST_SECONDS

    def read(self, path: str, limit: int) -> bytes | None:
        """A regular file's content; None where there is none, or something else is there."""
        try:
            data = paths.read_file_in_root(self._root, path, min(limit, self._bytes))
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            if error.errno == errno.EFBIG:
                raise InvalidRequest(f"{shown(path)} is larger than {limit} bytes") from None
            raise
        self._bytes -= len(data)
        return data

    def names(self, path: str) -> list[str]:
        """What is in a directory, sorted; nothing where there is none."""
        try:
            fd = paths.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise
        try:
            return sorted(name for name, _ in self._listed(fd))
        finally:
            os.close(fd)

    def directories(self) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
        """Every directory with what is in it: names, and whether each is a directory itself."""
        waiting = [("", 0)]
        while waiting:
            path, depth = waiting.pop()
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
                found = sorted(self._listed(fd))
            finally:
                os.close(fd)
            yield path, found
            if depth < _DEEPEST:
                below = [name for name, is_directory in found if is_directory]
                waiting += [(f"{path}/{n}".lstrip("/"), depth + 1) for n in reversed(below)]

    def _listed(self, fd: int) -> Iterator[tuple[str, bool]]:
        with os.scandir(fd) as entries:
            for entry in entries:
                self._entries -= 1
                if self._entries < 0:
                    raise InvalidRequest(f"the image has more than {MOST_ENTRIES} files")
                if self._entries % 1024 == 0 and monotonic() > self._ends:
                    raise InvalidRequest(
                        f"the image's files are not looked through in {MOST_SECONDS} seconds"
                    )
                yield entry.name, entry.is_dir(follow_symlinks=False)


def shown(path: str) -> str:
    """A path as messages have it."""
    return "".join(c if c.isprintable() else "?" for c in path[:200])
