"""Directories that a build copies: whole ones, and paths with the directories above them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

import msgspec

from jaula.images.build.sources import Archive, Tree, described
from jaula.kernel import paths
from jaula.storage.tar.entry import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, TarEntry
from jaula.storage.tar.writer import TAR_TYPES, read_padded
from jaula.storage.trees import read_xattrs, walk

Keep = Callable[[bytes], bool]
"""Whether what has a path in an archive is to be in it."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Reading:
    """An archive whose present entry is a file in an open directory."""

    def __init__(self) -> None:
        self._present: tuple[int, bytes, int] | None = None
        self._links: dict[tuple[int, int], bytes] = {}

    def data(self) -> Iterator[memoryview]:
        """The present file; one that shrinks is padded, one that grows is cut."""
        if self._present is None:
            return
        folder, name, size = self._present
        descriptor = os.open(name, _OPEN, dir_fd=folder)
        try:
            for piece in read_padded(descriptor, size):
                yield memoryview(piece)
        finally:
            os.close(descriptor)

    def _entry(
        self, folder: int, name: bytes, facts: os.stat_result, path: bytes
    ) -> TarEntry | None:
        """What ``name`` becomes under ``path``; None for a socket."""
        self._present = None
        kind = TAR_TYPES.get(stat.S_IFMT(facts.st_mode))
        if kind is None:
            return None
        entry = described(path, kind, facts)
        if kind != DIRECTORY and facts.st_nlink > 1:
            first = self._links.setdefault((facts.st_dev, facts.st_ino), path)
            if first != path:
                entry.type, entry.link = HARD_LINK, first
                return entry
        if kind == SYMLINK:
            entry.link = os.readlink(name, dir_fd=folder)
            return entry
        if kind not in (REGULAR, DIRECTORY):
            return entry
        entry.xattrs = {
            attribute: value
            for attribute, value in read_xattrs(folder, name).items()
            if attribute.startswith("user.") or attribute == "security.capability"
        }
        if kind == REGULAR:
            entry.size = facts.st_size
            self._present = folder, name, facts.st_size
        return entry


class DirectorySource(msgspec.Struct, frozen=True):
    """What the directory at ``path`` of a tree holds, but for what ``keep`` refuses."""

    tree: Tree
    path: bytes
    keep: Keep | None = None
    name: bytes = b""
    fills: bool = True

    @property
    def keeps_owners(self) -> bool:
        return self.tree.keeps_owners

    def archive(self, name: bytes) -> Archive:
        return _FolderArchive(self)


class _FolderArchive(_Reading):
    def __init__(self, source: DirectorySource) -> None:
        super().__init__()
        self._source = source

    def __iter__(self) -> Iterator[TarEntry]:
        source = self._source
        root = paths.open_in_root(
            source.tree.root, source.path or b".", os.O_RDONLY | os.O_DIRECTORY
        )
        try:
            yield from self.below(root, b"")
        finally:
            os.close(root)

    def below(self, root: int, prefix: bytes) -> Iterator[TarEntry]:
        """Everything in ``root``; ``prefix`` is what the names get in front."""
        keep = self._source.keep
        hidden: dict[bytes, TarEntry] = {}  # directories that come only with something in them
        for path, folder, entries in walk(root):
            for name, facts in list(entries):
                inner = _join(path, name)
                wanted = keep is None or keep(_join(prefix, inner))
                if not wanted and not stat.S_ISDIR(facts.st_mode):
                    continue
                entry = self._entry(folder, name, facts, _join(prefix, inner))
                if entry is None:
                    continue
                if not wanted:
                    hidden[inner] = entry
                    continue
                if hidden:
                    present = self._present
                    yield from _revealed(hidden, inner)
                    self._present = present
                yield entry


def _revealed(hidden: dict[bytes, TarEntry], path: bytes) -> Iterator[TarEntry]:
    """The directories above ``path`` that were left out so far, topmost first."""
    above = path
    found: list[TarEntry] = []
    while b"/" in above:
        above = above.rpartition(b"/")[0]
        entry = hidden.pop(above, None)
        if entry is not None:
            found.append(entry)
    yield from reversed(found)


class SubdirectorySource(DirectorySource, frozen=True, kw_only=True):
    """``COPY --parents``: ``names`` below a directory, each with the directories above it."""

    names: tuple[bytes, ...]

    def archive(self, name: bytes) -> Archive:
        return _InsideArchive(self)


class _InsideArchive(_FolderArchive):
    def __init__(self, source: SubdirectorySource) -> None:
        super().__init__(source)
        self._inside = source

    def __iter__(self) -> Iterator[TarEntry]:
        inside, told = self._inside, set[bytes]()
        root = paths.open_in_root(inside.tree.root, inside.path or b".", os.O_RDONLY)
        try:
            for path in inside.names:
                names = path.split(b"/")
                for end in range(1, len(names) + 1):
                    step = b"/".join(names[:end])
                    if step in told:
                        continue
                    told.add(step)
                    yield from self._step(root, step, last=end == len(names))
        finally:
            os.close(root)

    def _step(self, root: int, path: bytes, *, last: bool) -> Iterator[TarEntry]:
        above, _, name = path.rpartition(b"/")
        folder = paths.open_in_root(root, above or b".", os.O_PATH | os.O_DIRECTORY)
        try:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            entry = self._entry(folder, name, facts, path)
            if entry is None:
                return
            yield entry
            if last and entry.type == DIRECTORY:
                held = paths.openat2(folder, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    yield from self.below(held, path)
                finally:
                    os.close(held)
        finally:
            os.close(folder)


def _join(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name if above else name
