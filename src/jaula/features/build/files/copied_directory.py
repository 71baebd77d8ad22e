"""Directories that a build copies: whole ones, and paths with their parent directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

import msgspec

from jaula.features.build.files.source_archives import Archive, Tree
from jaula.kernel import openat2
from jaula.storage.tar.tar_entry import DIRECTORY, REGULAR, SYMLINK, TarEntry
from jaula.storage.tar.tar_writer import TAR_TYPES, HardLinks, read_padded, tar_entry
from jaula.storage.trees import read_xattrs, walk

Keep = Callable[[bytes], bool]
"""Return whether the entry with this path in an archive is included."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _DirectoryReader:
    """An archive whose current entry is a file in an open directory."""

    def __init__(self) -> None:
        self._current: tuple[int, bytes, int] | None = None
        self._links = HardLinks()

    def data(self) -> Iterator[memoryview]:
        """Yield the current file. One that shrinks is padded, one that grows is truncated."""
        if self._current is None:
            return
        parent_fd, name, size = self._current
        descriptor = os.open(name, _OPEN, dir_fd=parent_fd)
        try:
            for chunk in read_padded(descriptor, size):
                yield memoryview(chunk)
        finally:
            os.close(descriptor)

    def _entry(
        self, parent_fd: int, name: bytes, status: os.stat_result, path: bytes
    ) -> TarEntry | None:
        """Return the entry of ``name`` under ``path``, or None for a socket."""
        self._current = None
        kind = TAR_TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None
        entry = tar_entry(path, kind, status)
        if self._links.link(entry, status):
            return entry
        if kind == SYMLINK:
            entry.link = os.readlink(name, dir_fd=parent_fd)
            return entry
        if kind not in (REGULAR, DIRECTORY):
            return entry
        entry.xattrs = {
            attribute: value
            for attribute, value in read_xattrs(parent_fd, name).items()
            if attribute.startswith("user.") or attribute == "security.capability"
        }
        if kind == REGULAR:
            entry.size = status.st_size
            self._current = parent_fd, name, status.st_size
        return entry


class DirectorySource(msgspec.Struct, frozen=True):
    """The content of the directory at ``path`` of a tree, filtered by ``keep``."""

    tree: Tree
    path: bytes
    keep: Keep | None = None
    name: bytes = b""
    contents_only: bool = True

    @property
    def keeps_owners(self) -> bool:
        return self.tree.keeps_owners

    def archive(self, name: bytes) -> Archive:
        return _DirectoryArchive(self)


class _DirectoryArchive(_DirectoryReader):
    def __init__(self, source: DirectorySource) -> None:
        super().__init__()
        self._source = source

    def __iter__(self) -> Iterator[TarEntry]:
        source = self._source
        root = openat2.open_in_root(
            source.tree.root, source.path or b".", os.O_RDONLY | os.O_DIRECTORY
        )
        try:
            yield from self.below(root, b"")
        finally:
            os.close(root)

    def below(self, root: int, prefix: bytes) -> Iterator[TarEntry]:
        """Yield all entries in ``root``. ``prefix`` is prepended to their names."""
        keep = self._source.keep
        deferred: dict[bytes, TarEntry] = {}  # directories that are included only with content
        for path, parent_fd, entries in walk(root):
            for name, status in list(entries):
                inner = _join(path, name)
                included = keep is None or keep(_join(prefix, inner))
                if not included and not stat.S_ISDIR(status.st_mode):
                    continue
                entry = self._entry(parent_fd, name, status, _join(prefix, inner))
                if entry is None:
                    continue
                if not included:
                    deferred[inner] = entry
                    continue
                if deferred:
                    current = self._current
                    yield from _deferred_parents(deferred, inner)
                    self._current = current
                yield entry


def _deferred_parents(deferred: dict[bytes, TarEntry], path: bytes) -> Iterator[TarEntry]:
    """Yield the deferred parent directories of ``path``, topmost first."""
    parent = path
    entries: list[TarEntry] = []
    while b"/" in parent:
        parent = parent.rpartition(b"/")[0]
        entry = deferred.pop(parent, None)
        if entry is not None:
            entries.append(entry)
    yield from reversed(entries)


class SubdirectorySource(DirectorySource, frozen=True, kw_only=True):
    """``COPY --parents``: ``paths`` below a directory, each with its parent directories."""

    paths: tuple[bytes, ...]

    def archive(self, name: bytes) -> Archive:
        return _SubdirectoryArchive(self)


class _SubdirectoryArchive(_DirectoryArchive):
    def __init__(self, source: SubdirectorySource) -> None:
        super().__init__(source)
        self._subdirectories = source

    def __iter__(self) -> Iterator[TarEntry]:
        source, emitted = self._subdirectories, set[bytes]()
        root = openat2.open_in_root(source.tree.root, source.path or b".", os.O_RDONLY)
        try:
            for path in source.paths:
                names = path.split(b"/")
                for end in range(1, len(names) + 1):
                    step = b"/".join(names[:end])
                    if step in emitted:
                        continue
                    emitted.add(step)
                    yield from self._step(root, step, last=end == len(names))
        finally:
            os.close(root)

    def _step(self, root: int, path: bytes, *, last: bool) -> Iterator[TarEntry]:
        parent, _, name = path.rpartition(b"/")
        parent_fd = openat2.open_in_root(root, parent or b".", os.O_PATH | os.O_DIRECTORY)
        try:
            status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            entry = self._entry(parent_fd, name, status, path)
            if entry is None:
                return
            yield entry
            if last and entry.type == DIRECTORY:
                fd = openat2.openat2(parent_fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    yield from self.below(fd, path)
                finally:
                    os.close(fd)
        finally:
            os.close(parent_fd)


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name
