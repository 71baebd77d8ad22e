"""Sources of a copy, each as an archive: entries in order of their paths, and their data.

Their roots are the engine's own (a context, a download) or a stage's, which a ``RUN`` has written.
All are read by descriptors. Symbolic links in a source path are followed inside the root only.
Below the source none is followed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import Protocol

import msgspec

from jaula.kernel import openat2
from jaula.storage.tar import tar_writer
from jaula.storage.tar.tar_entry import (
    DIRECTORY,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from jaula.storage.tar.tar_writer import TAR_TYPES, portable_xattrs, read_padded, tar_entry


class Tree(msgspec.Struct, frozen=True):
    """A root in which sources are resolved. ``root`` is a descriptor that the caller keeps open.

    ``title`` is used in messages: ``the build context``, ``stage web``. Without ``keeps_owners``
    all files belong to root, as those of a client.
    """

    root: int
    title: str = "the build context"
    keeps_owners: bool = False


class Source(Protocol):
    """One source of a copy.

    ``name`` is its name in a target directory. ``contents_only`` is true if the content of a
    directory is copied, not a named file. ``keeps_owners`` is true if the owners of its entries are
    kept.
    """

    @property
    def name(self) -> bytes: ...

    @property
    def contents_only(self) -> bool: ...

    @property
    def keeps_owners(self) -> bool: ...

    def archive(self, name: bytes) -> Archive:
        """Return its entries, relative to the directory that it fills, or under ``name``."""


class Archive(Protocol):
    """An archive as in :class:`jaula.storage.cp.extract_archive.Archive`."""

    def __iter__(self) -> Iterator[TarEntry]: ...

    def data(self) -> Iterator[memoryview]: ...


class File(msgspec.Struct, frozen=True):
    """One file that is not a directory, at ``path`` of a tree, with the name ``name``."""

    tree: Tree
    path: bytes
    name: bytes
    contents_only: bool = False

    @property
    def keeps_owners(self) -> bool:
        return self.tree.keeps_owners

    def archive(self, name: bytes) -> Archive:
        return _FileArchive(self, name)

    def open(self) -> int:
        """Return a descriptor for reading."""
        return openat2.open_in_root(self.tree.root, self.path, os.O_RDONLY | os.O_NONBLOCK)


class _FileArchive:
    """The archive of one file, read through one descriptor."""

    def __init__(self, source: File, name: bytes) -> None:
        self._source = source
        self._name = name
        self._fd = -1
        self._size = 0

    def __iter__(self) -> Iterator[TarEntry]:
        self._fd = openat2.open_in_root(self._source.tree.root, self._source.path, os.O_PATH)
        try:
            status = os.fstat(self._fd)
            kind = TAR_TYPES.get(stat.S_IFMT(status.st_mode))
            if kind in (None, DIRECTORY, SYMLINK):
                return
            entry = tar_entry(self._name, kind, status)
            if kind == REGULAR:
                entry.xattrs = portable_xattrs(self._fd)
                entry.size = self._size = status.st_size
            yield entry
        finally:
            os.close(self._fd)

    def data(self) -> Iterator[memoryview]:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"/proc/self/fd/{self._fd}", flags)
        try:
            for chunk in read_padded(descriptor, self._size):
                yield memoryview(chunk)
        finally:
            os.close(descriptor)


class Text(msgspec.Struct, frozen=True):
    """A here-document."""

    name: bytes
    content: bytes
    contents_only: bool = False
    keeps_owners: bool = False

    def archive(self, name: bytes) -> Archive:
        return _TextArchive(self, name)


class _TextArchive:
    def __init__(self, source: Text, name: bytes) -> None:
        self._source = source
        self._name = name

    def __iter__(self) -> Iterator[TarEntry]:
        yield tar_writer.new_entry(
            self._name, size=len(self._source.content), mtime=int(time.time())
        )

    def data(self) -> Iterator[memoryview]:
        yield memoryview(self._source.content)
