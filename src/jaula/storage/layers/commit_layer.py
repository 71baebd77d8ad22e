"""Commit a container's changes to a layer, from a diff or from an overlay's upper directory.

Follows opencontainers/image-spec 1.1 ``layer.md``: added and modified files with their parents, a
deleted file as an empty file ``.wh.NAME``. The same changes give the same bytes: entries sorted by
path, no names of owners, whole seconds.

:func:`write_layer` writes a diff from the merged tree, so it works with any driver.

:func:`write_upper` writes an upper directory, which then becomes the layer without extracting its
tar: opaque directories have ``.wh..wh..opq``, and only ``user.`` attributes and file capabilities
are stored. The directory is changed at the same time to what the extractor would create from that
tar.
"""

from __future__ import annotations

import os
import posixpath
import stat

from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.storage.cp.create_archive import ArchiveWriter
from jaula.storage.drivers.storage_driver import ChangeFilter, ChangeKind
from jaula.storage.layer_diff import overlay_differences
from jaula.storage.tar.tar_entry import (
    DIRECTORY,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from jaula.storage.tar.tar_writer import (
    TAR_TYPES,
    HardLinks,
    Sink,
    TarWriter,
    new_entry,
    portable_xattrs,
    read_padded,
    tar_entry,
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
"""Relative paths, with the parents of changes."""

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_SECOND = 1_000_000_000
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_REDIRECT_SUFFIXES = (".redirect", ".metacopy")


class Redirected(Exception):
    """The upper directory is incomplete: overlayfs moved a directory or copied up metadata only."""


def write_layer(merged: int, differences: Differences, sink: Sink, *, exact: bool = False) -> None:
    """Write the tar of a diff. ``merged`` is a descriptor of the container's root.

    With ``exact`` it has an entry for the root directory, times in nanoseconds, and ACLs.
    """
    out = ArchiveWriter(sink, exact=exact)
    if exact:
        out.add_file(merged, b".", os.fstat(merged))
    for path, kind in sorted(differences.items(), key=lambda item: item[0].split(b"/")):
        if kind is ChangeKind.DELETED:
            directory, name = posixpath.split(path)
            out.add(new_entry(posixpath.join(directory, _WHITEOUT + name), mode=0))
            continue
        resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
        try:
            fd = openat2(merged, path, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
        except FileNotFoundError:
            continue  # removed meanwhile, in a container that was not paused
        try:
            out.add_file(fd, path, os.fstat(fd))
        finally:
            os.close(fd)
    out.finish()


def prune_unchanged(upper: int, lower_root: int, select: ChangeFilter) -> bool:
    """Remove unchanged files and those not selected from ``upper``. Return whether any remain.

    ``lower_root`` is a descriptor of the merged layers. A new directory is not opaque afterwards:
    overlayfs with ``xino=on`` makes it so, although it hides nothing, and the layer would have
    another digest than the same layer made without that option.
    """
    kept = select(overlay_differences(upper, lower_root))
    for path, directory, entries in walk(upper):
        if kept.get(path) is ChangeKind.ADDED and is_opaque(directory):
            os.removexattr(directory, opaque_xattr())
        for item in tuple(entries):
            name = item[0]
            if (path + b"/" + name if path else name) not in kept:
                remove_tree(directory, name)
                entries.remove(item)
    return bool(kept)


def write_upper(upper: int, sink: Sink, *, newest: int | None = None, exact: bool = False) -> int:
    """Write the tar of an upper directory. Return the bytes of its regular files.

    ``newest`` is the latest time of a file, in nanoseconds. With ``exact`` all files get that time.
    No other process may use the directory.

    :raises Redirected: when the directory is incomplete; no file is lost then.
    """
    archive = _UpperArchive(sink, newest, exact=exact)
    for path, directory, entries in walk(upper):
        if path and is_opaque(directory):
            archive.tar.add(new_entry(path + b"/" + _OPAQUE, mode=0))
        for name, status in entries:
            archive.add_file(directory, name, path + b"/" + name if path else name, status)
    archive.tar.finish()
    return archive.size


class _UpperArchive:
    def __init__(self, sink: Sink, newest: int | None, *, exact: bool) -> None:
        self.tar = TarWriter(sink)
        self.size = 0
        self._newest = newest
        self._exact = exact
        self._links = HardLinks()

    def add_file(self, directory: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        kind = TAR_TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket, which a tar archive cannot store
            os.unlink(name, dir_fd=directory)
            return
        if is_whiteout(status):
            parent, _, own = path.rpartition(b"/")
            hidden = _WHITEOUT + own
            self.tar.add(new_entry(parent + b"/" + hidden if parent else hidden, mode=0))
            return
        entry = self._entry(path, kind, status)
        self._set_time(directory, name, entry.mtime, status)
        if self._links.link(entry, status):
            self.tar.add(entry)
            return
        if kind == SYMLINK:
            entry.link = os.readlink(name, dir_fd=directory)
        if kind not in (REGULAR, DIRECTORY):
            self.tar.add(entry)
            return
        fd = self._open(directory, name, kind)
        try:
            entry.xattrs = self._attributes(fd)
            if kind == REGULAR:
                entry.size = os.fstat(fd).st_size
                self.size += entry.size
                self.tar.add(entry, read_padded(fd, entry.size))
            else:
                self.tar.add(entry)
        finally:
            os.close(fd)

    def _open(self, directory: int, name: bytes, kind: int) -> int:
        if kind == DIRECTORY:
            return open_subdirectory(directory, name)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=directory)

    def _entry(self, path: bytes, kind: int, status: os.stat_result) -> TarEntry:
        entry = tar_entry(path, kind, status)
        if self._newest is not None:
            entry.mtime = self._newest if self._exact else min(entry.mtime, self._newest)
        entry.mtime -= entry.mtime % _SECOND
        return entry

    def _set_time(self, directory: int, name: bytes, time: int, status: os.stat_result) -> None:
        if status.st_mtime_ns != time:
            os.utime(name, ns=(time, time), dir_fd=directory, follow_symlinks=False)

    def _attributes(self, fd: int) -> dict[str, bytes]:
        """Return the attributes to archive. Remove overlayfs's attributes about the lower file."""
        file = b"/proc/self/fd/%d" % fd
        for attribute in os.listxattr(file):
            if not attribute.startswith(_OVERLAY) or attribute == opaque_xattr():
                continue
            if attribute.endswith(_REDIRECT_SUFFIXES):
                raise Redirected
            os.removexattr(file, attribute)
        return portable_xattrs(fd)
