"""Read the files of an image by descriptors below its root, within a budget.

Symbolic links are followed only inside the root (openat2(2), ``RESOLVE_IN_ROOT``). A directory walk
follows none. Each directory is opened by descriptor, one at a time, so the depth does not cost
memory and path length is not limited.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Protocol

from jaula.errors import InvalidRequest
from jaula.kernel import openat2
from jaula.kernel.openat2 import RESOLVE

MAX_ENTRIES = 3_000_000
MAX_BYTES = 1 << 30  # of all files read
MAX_SECONDS = 120
_MAX_DEPTH = 64  # directories; no package database is that deep
_ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EINVAL, errno.ENXIO}
)


MAX_QUERIES = 2_000_000
"""Files and directories that a sandboxed process may ask for."""


class Files(Protocol):
    """Opens what is in the root of an image. Every method raises ``OSError``."""

    def open_file(self, path: str) -> int:
        """Return a descriptor of a regular file."""
        ...

    def open_directory(self, path: str, *, follow: bool) -> int:
        """Return a descriptor of a directory; with ``follow``, links inside the root lead to it."""
        ...


class RootFiles:
    """The files below a descriptor of an image's root."""

    def __init__(self, root: int) -> None:
        self._root = root

    def open_file(self, path: str) -> int:
        """Return a descriptor of a regular file, EINVAL for any other."""
        fd = openat2.open_in_root(self._root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return fd

    def open_directory(self, path: str, *, follow: bool) -> int:
        """Return a descriptor of a directory."""
        if follow:
            return openat2.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        return openat2.openat2(
            self._root,
            path or ".",
            os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW,
            resolve=RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_XDEV,
        )

    def answer(self) -> Callable[[bytes], tuple[bytes, list[int]]]:
        """Return the answers to the queries of :class:`AskedFiles`, in a limited number."""
        left = MAX_QUERIES

        def answer(query: bytes) -> tuple[bytes, list[int]]:
            nonlocal left
            left -= 1
            path = os.fsdecode(query[1:])
            if left < 0 or "\0" in path:
                raise OSError(errno.EACCES, "refused")
            if query[:1] == _FILE:
                return b"", [self.open_file(path)]
            return b"", [self.open_directory(path, follow=query[:1] == _LINKED)]

        return answer


_FILE, _LINKED, _PLAIN = b"f", b"l", b"d"


class AskedFiles:
    """The files of an image as a sandboxed process has them: the engine opens each one."""

    def __init__(self, ask: Callable[[bytes], tuple[bytes, list[int]]]) -> None:
        self._ask = ask

    def open_file(self, path: str) -> int:
        return self._query(_FILE, path)

    def open_directory(self, path: str, *, follow: bool) -> int:
        return self._query(_LINKED if follow else _PLAIN, path)

    def _query(self, kind: bytes, path: str) -> int:
        return self._ask(kind + os.fsencode(path))[1][0]


class RootfsReader:
    """The root of an image. Every method raises :class:`InvalidRequest` beyond the budget."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._bytes = MAX_BYTES
        self._entries = MAX_ENTRIES
        self._ends = monotonic() + MAX_SECONDS

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the content of a regular file, or None if there is no regular file.

        :raises InvalidRequest: if it is larger than ``limit`` bytes.
        """
        try:
            fd = self._files.open_file(path)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        try:
            data = _read(fd, min(limit, self._bytes))
        finally:
            os.close(fd)
        if data is None:
            raise InvalidRequest(f"{printable(path)} is larger than {limit} bytes")
        self._bytes -= len(data)
        return data

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory, empty if it is absent."""
        try:
            fd = self._files.open_directory(path, follow=True)
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
                fd = self._files.open_directory(path, follow=False)
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


def _read(fd: int, limit: int) -> bytes | None:
    """Return the content of a file, None if it has more than ``limit`` bytes."""
    content = bytearray()
    while chunk := os.read(fd, min(1 << 20, limit + 1 - len(content))):
        content += chunk
        if len(content) > limit:
            return None
    return bytes(content)


def printable(path: str) -> str:
    """Return a path in printable form."""
    return "".join(c if c.isprintable() else "?" for c in path[:200])
