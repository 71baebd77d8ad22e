"""Things that a build copies, each as an archive: entries in order of path, and their data.

The roots that they lie in are the engine's own (a context, a download) or a stage's, which
a ``RUN`` has written. All are read by descriptors, a link in them is followed inside the root only,
and below the thing that was named none is followed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import Protocol

import msgspec

from jaula.kernel import paths
from jaula.storage.tar import writer
from jaula.storage.tar.entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from jaula.storage.tar.writer import TAR_TYPES, portable_xattrs, read_padded


class Tree(msgspec.Struct, frozen=True):
    """Where sources are looked up. ``root`` is a descriptor that the caller keeps open.

    ``title`` is for messages: ``the build context``, ``stage web``. Without ``keeps_owners`` all is
    root's, as what a client sends.
    """

    root: int
    title: str = "the build context"
    keeps_owners: bool = False


class Source(Protocol):
    """One thing to be copied.

    ``name`` is what it is called in a directory. ``fills`` says that it is not a thing with a name
    but what a directory holds. ``kept_owners`` says whether its entries' owners count.
    """

    @property
    def name(self) -> bytes: ...

    @property
    def fills(self) -> bool: ...

    @property
    def keeps_owners(self) -> bool: ...

    def archive(self, name: bytes) -> Archive:
        """Its entries, below the directory that it fills, or under ``name``."""


class Archive(Protocol):
    """As :class:`jaula.storage.cp.extract_archive.Archive`."""

    def __iter__(self) -> Iterator[TarEntry]: ...

    def data(self) -> Iterator[memoryview]: ...


def described(path: bytes, kind: int, facts: os.stat_result) -> TarEntry:
    """The entry of what has these facts; a device's numbers included."""
    entry = TarEntry()
    entry.name, entry.type = path, kind
    entry.mode = stat.S_IMODE(facts.st_mode)
    entry.uid, entry.gid, entry.mtime = facts.st_uid, facts.st_gid, facts.st_mtime_ns
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    return entry


class File(msgspec.Struct, frozen=True):
    """One thing that is no directory, at ``path`` of a tree, called ``name``."""

    tree: Tree
    path: bytes
    name: bytes
    fills: bool = False

    @property
    def keeps_owners(self) -> bool:
        return self.tree.keeps_owners

    def archive(self, name: bytes) -> Archive:
        return _FileArchive(self, name)

    def open(self) -> int:
        """A descriptor to read from."""
        return paths.open_in_root(self.tree.root, self.path, os.O_RDONLY | os.O_NONBLOCK)


class _FileArchive:
    """Read through one descriptor of what the path leads to."""

    def __init__(self, source: File, name: bytes) -> None:
        self._source = source
        self._name = name
        self._place = -1
        self._size = 0

    def __iter__(self) -> Iterator[TarEntry]:
        self._place = paths.open_in_root(self._source.tree.root, self._source.path, os.O_PATH)
        try:
            facts = os.fstat(self._place)
            kind = TAR_TYPES.get(stat.S_IFMT(facts.st_mode))
            if kind in (None, DIRECTORY, SYMLINK):
                return
            entry = described(self._name, kind, facts)
            if kind == REGULAR:
                entry.xattrs = portable_xattrs(self._place)
                entry.size = self._size = facts.st_size
            yield entry
        finally:
            os.close(self._place)

    def data(self) -> Iterator[memoryview]:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"/proc/self/fd/{self._place}", flags)
        try:
            for piece in read_padded(descriptor, self._size):
                yield memoryview(piece)
        finally:
            os.close(descriptor)


class Text(msgspec.Struct, frozen=True):
    """A here-document."""

    name: bytes
    content: bytes
    fills: bool = False
    keeps_owners: bool = False

    def archive(self, name: bytes) -> Archive:
        return _TextArchive(self, name)


class _TextArchive:
    def __init__(self, source: Text, name: bytes) -> None:
        self._source = source
        self._name = name

    def __iter__(self) -> Iterator[TarEntry]:
        yield writer.new_entry(self._name, size=len(self._source.content), mtime=int(time.time()))

    def data(self) -> Iterator[memoryview]:
        yield memoryview(self._source.content)
