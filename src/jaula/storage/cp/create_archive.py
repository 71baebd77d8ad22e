"""One thing of a container as a tar archive: what ``GET /containers/{id}/archive`` answers.

The thing is a descriptor; what lies in it is walked by descriptors too
(:mod:`jaula.storage.trees`), and files are read in pieces. Owners are told as ids inside the
container.

What the kernel makes up below a directory (proc, sysfs, cgroups) and the nodes of ``/dev`` are
left out, as Docker leaves them out: they are mounts that every container has of its own. Sockets
have no place in an archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection

from jaula.kernel import paths
from jaula.kernel.paths import RESOLVE
from jaula.storage.path_resolve import on_kernel_filesystem, refuse_kernel_filesystem
from jaula.storage.tar.entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from jaula.storage.tar.writer import TAR_TYPES, Sink, TarWriter, portable_xattrs, read_padded
from jaula.storage.trees import walk

Owner = Callable[[int, int], tuple[int, int]]
"""Turns the owner that the file system shows into the one to be written."""


def keep_owner(uid: int, gid: int) -> tuple[int, int]:
    """The owner as it is."""
    return uid, gid


class ArchiveWriter:
    """Writes one archive to ``sink``."""

    def __init__(self, sink: Sink, owner: Owner = keep_owner) -> None:
        self._writer = TarWriter(sink)
        self._owner = owner
        self._links: dict[tuple[int, int], bytes] = {}
        self._without: Collection[int] = ()

    def write(self, place: int, name: str, *, without: Collection[int] = ()) -> None:
        """The thing at ``place``, an ``O_PATH`` descriptor, under ``name``; ends the archive.

        Of file systems ``without`` (their ``st_dev``) that are met below there are no files, only
        the directory at which they are mounted.
        Raises :class:`~jaula.errors.InvalidRequest` on a kernel file system.
        """
        refuse_kernel_filesystem(place, f"/{name}")
        facts = os.fstat(place)
        path = os.fsencode(name)
        if stat.S_ISDIR(facts.st_mode):
            self._without = without
            self._tree(place, path, facts)
        else:
            self.one(place, path, facts)
        self.finish()

    def add(self, entry: TarEntry) -> None:
        """An entry without data, as it is."""
        self._writer.add(entry)

    def finish(self) -> None:
        """End the archive."""
        self._writer.finish()

    def _tree(self, place: int, path: bytes, facts: os.stat_result) -> None:
        root = paths.openat2(place, ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            entry = self._entry(path, DIRECTORY, facts)
            entry.xattrs = portable_xattrs(place)
            self._writer.add(entry)
            for below, folder, entries in walk(root):
                here = os.fstat(folder).st_dev
                if below and (on_kernel_filesystem(folder) or here in self._without):
                    entries.clear()
                    continue
                for name, found in entries:
                    inner = below + b"/" + name if below else name
                    self._add(folder, name, _join(path, inner), found)
        finally:
            os.close(root)

    def _add(self, folder: int, name: bytes, path: bytes, found: os.stat_result) -> None:
        if stat.S_IFMT(found.st_mode) not in TAR_TYPES:
            return
        resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
        try:
            place = paths.openat2(folder, name, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
        except OSError:
            return  # it went away meanwhile
        try:
            facts = os.fstat(place)
            hidden = on_kernel_filesystem(place) or facts.st_dev in self._without
            if stat.S_ISDIR(facts.st_mode) or not hidden:
                self.one(place, path, facts)
        finally:
            os.close(place)

    def one(self, place: int, path: bytes, facts: os.stat_result) -> None:
        """One entry; a directory without what it holds, nothing for a socket."""
        kind = TAR_TYPES.get(stat.S_IFMT(facts.st_mode))
        if kind is None:
            return
        entry = self._entry(path, kind, facts)
        if kind != DIRECTORY and facts.st_nlink > 1:
            first = self._links.setdefault((facts.st_dev, facts.st_ino), path)
            if first != path:
                entry.type, entry.link = HARD_LINK, first
                self._writer.add(entry)
                return
        if kind == SYMLINK:
            entry.link = os.readlink(b"", dir_fd=place)
        elif kind in (REGULAR, DIRECTORY):
            entry.xattrs = portable_xattrs(place)
        if kind != REGULAR:
            self._writer.add(entry)
            return
        # The descriptor names the very file, so nothing can be put in its place before it is read.
        reading = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            entry.size = os.fstat(reading).st_size
            self._writer.add(entry, read_padded(reading, entry.size))
        finally:
            os.close(reading)

    def _entry(self, path: bytes, kind: int, facts: os.stat_result) -> TarEntry:
        entry = TarEntry()
        entry.name, entry.type = path, kind
        entry.mode = stat.S_IMODE(facts.st_mode)
        entry.uid, entry.gid = self._owner(facts.st_uid, facts.st_gid)
        entry.mtime = facts.st_mtime_ns
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.major, entry.minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
        return entry


def _join(path: bytes, inner: bytes) -> bytes:
    return path + inner if path.endswith(b"/") else path + b"/" + inner
