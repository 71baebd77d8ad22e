"""An overlay's upper directory as a layer: the directory itself is kept, its tar is written once.

Follows opencontainers/image-spec 1.1 ``layer.md``. The tar that is written is the very one from
which the extractor would make such a directory: whiteouts as ``.wh.NAME``, an opaque directory as
``.wh..wh..opq`` in it, times in whole seconds, attributes of users and file capabilities only. The
directory is brought into that state at the same time, so that it need not be unpacked again.

The same files give the same bytes: entries in order of name, no names of owners.
"""

from __future__ import annotations

import os
import posixpath
import stat

from jaula.kernel.paths import RESOLVE, openat2
from jaula.storage.cp.create_archive import ArchiveWriter
from jaula.storage.diff import overlay_differences
from jaula.storage.drivers.driver import ChangeFilter, ChangeKind
from jaula.storage.tar.entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from jaula.storage.tar.writer import (
    TAR_TYPES,
    Sink,
    TarWriter,
    new_entry,
    portable_xattrs,
    read_padded,
)
from jaula.storage.trees import (
    is_opaque,
    is_whiteout,
    opaque_xattr,
    open_subdirectory,
    remove_tree,
    walk,
)

Differences = dict[bytes, ChangeKind]
"""Relative paths, parents of changes included."""

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_SECOND = 1_000_000_000
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_MOVED = (".redirect", ".metacopy")


class Redirected(Exception):
    """overlayfs moved a directory, or has a file's facts only: the directory is not the whole."""


def write_layer(merged: int, differences: Differences, sink: Sink) -> None:
    """Write the archive; ``merged`` is the container's root as a descriptor."""
    out = ArchiveWriter(sink)
    for path, kind in sorted(differences.items(), key=lambda item: item[0].split(b"/")):
        if kind is ChangeKind.DELETED:
            folder, name = posixpath.split(path)
            out.add(new_entry(posixpath.join(folder, _WHITEOUT + name), mode=0))
            continue
        resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
        try:
            place = openat2(merged, path, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
        except FileNotFoundError:
            continue  # it went away meanwhile, in a container that was not paused
        try:
            out.one(place, path, os.fstat(place))
        finally:
            os.close(place)
    out.finish()


def prune_unchanged(upper: int, below: int, choose: ChangeFilter) -> bool:
    """Remove what differs from nothing below, or is not chosen; whether anything is left.

    ``below`` is a descriptor of the layers' merged root.
    """
    kept = choose(overlay_differences(upper, below))
    for path, folder, entries in walk(upper):
        for found in tuple(entries):
            name = found[0]
            if (path + b"/" + name if path else name) not in kept:
                remove_tree(folder, name)
                entries.remove(found)
    return bool(kept)


def write_upper(upper: int, sink: Sink, *, newest: int | None = None, exact: bool = False) -> int:
    """Write the directory's tar; the bytes of its regular files.

    ``newest`` is the latest time that a file may have, in nanoseconds, and with ``exact`` the time
    that all get. Nobody else may use the
    directory. Raises :class:`Redirected`; nothing is lost then.
    """
    writing = _Writing(sink, newest, exact=exact)
    for path, folder, entries in walk(upper):
        if path and is_opaque(folder):
            writing.tar.add(new_entry(path + b"/" + _OPAQUE, mode=0))
        for name, facts in entries:
            writing.one(folder, name, path + b"/" + name if path else name, facts)
    writing.tar.finish()
    return writing.size


class _Writing:
    def __init__(self, sink: Sink, newest: int | None, *, exact: bool) -> None:
        self.tar = TarWriter(sink)
        self.size = 0
        self._newest = newest
        self._exact = exact
        self._links: dict[tuple[int, int], bytes] = {}

    def one(self, folder: int, name: bytes, path: bytes, facts: os.stat_result) -> None:
        kind = TAR_TYPES.get(stat.S_IFMT(facts.st_mode))
        if kind is None:  # a socket: it has no place in an archive
            os.unlink(name, dir_fd=folder)
            return
        if is_whiteout(facts):
            parent, _, own = path.rpartition(b"/")
            hidden = _WHITEOUT + own
            self.tar.add(new_entry(parent + b"/" + hidden if parent else hidden, mode=0))
            return
        told = self._described(path, kind, facts)
        self._settle(folder, name, told.mtime, facts)
        if kind != DIRECTORY and facts.st_nlink > 1:
            first = self._links.setdefault((facts.st_dev, facts.st_ino), path)
            if first != path:
                told.type, told.link = HARD_LINK, first
                self.tar.add(told)
                return
        if kind == SYMLINK:
            told.link = os.readlink(name, dir_fd=folder)
        if kind not in (REGULAR, DIRECTORY):
            self.tar.add(told)
            return
        place = self._opened(folder, name, kind)
        try:
            told.xattrs = self._attributes(place)
            if kind == REGULAR:
                told.size = os.fstat(place).st_size
                self.size += told.size
                self.tar.add(told, read_padded(place, told.size))
            else:
                self.tar.add(told)
        finally:
            os.close(place)

    def _opened(self, folder: int, name: bytes, kind: int) -> int:
        if kind == DIRECTORY:
            return open_subdirectory(folder, name)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=folder)

    def _described(self, path: bytes, kind: int, facts: os.stat_result) -> TarEntry:
        told = TarEntry()
        told.name, told.type = path, kind
        told.mode = stat.S_IMODE(facts.st_mode)
        told.uid, told.gid = facts.st_uid, facts.st_gid
        told.mtime = facts.st_mtime_ns
        if self._newest is not None:
            told.mtime = self._newest if self._exact else min(told.mtime, self._newest)
        told.mtime -= told.mtime % _SECOND
        if kind in (CHARACTER, BLOCK_DEVICE):
            told.major, told.minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
        return told

    def _settle(self, folder: int, name: bytes, time: int, facts: os.stat_result) -> None:
        if facts.st_mtime_ns != time:
            os.utime(name, ns=(time, time), dir_fd=folder, follow_symlinks=False)

    def _attributes(self, place: int) -> dict[str, bytes]:
        """What the archive says; overlayfs's own notes about the lower file are taken away."""
        where = b"/proc/self/fd/%d" % place
        for attribute in os.listxattr(where):
            if not attribute.startswith(_OVERLAY) or attribute == opaque_xattr():
                continue
            if attribute.endswith(_MOVED):
                raise Redirected
            os.removexattr(where, attribute)
        return portable_xattrs(place)
