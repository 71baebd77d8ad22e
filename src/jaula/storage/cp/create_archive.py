"""Write a file or directory of a container as a tar archive (``GET /containers/{id}/archive``).

The file is a descriptor. A directory is walked by descriptors (:mod:`jaula.storage.trees`), and
files are read in chunks. Owners are written as ids inside the container.

Kernel file systems below a directory (proc, sysfs, cgroups) and the nodes of ``/dev`` are left out,
as in Docker: every container has its own mounts of them. Sockets are left out, because a tar
archive cannot store them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection

from jaula.kernel import openat2
from jaula.kernel.openat2 import RESOLVE
from jaula.storage.path_resolve import on_kernel_filesystem, refuse_kernel_filesystem
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
    portable_xattrs,
    read_padded,
    tar_entry,
)
from jaula.storage.trees import walk

Owner = Callable[[int, int], tuple[int, int]]
"""Maps the uid and gid on disk to those in the archive."""


def keep_owner(uid: int, gid: int) -> tuple[int, int]:
    """Return the owner unchanged."""
    return uid, gid


class ArchiveWriter:
    """Writes one archive to ``sink``. ``owner`` maps the owners of the files.

    With ``exact`` times are not cut to whole seconds, and ACLs are written.
    """

    def __init__(self, sink: Sink, owner: Owner = keep_owner, *, exact: bool = False) -> None:
        self._writer = TarWriter(sink, nanoseconds=exact)
        self._exact = exact
        self._owner = owner
        self._links = HardLinks()
        self._without: Collection[int] = ()

    def write(self, fd: int, name: str, *, without: Collection[int] = ()) -> None:
        """Write the file of an ``O_PATH`` descriptor under ``name``, and end the archive.

        For the file systems ``without`` (their ``st_dev``) only the mount point is written.

        :raises InvalidRequest: when the file is on a kernel file system.
        """
        refuse_kernel_filesystem(fd, f"/{name}")
        status = os.fstat(fd)
        path = os.fsencode(name)
        if stat.S_ISDIR(status.st_mode):
            self._without = without
            self._tree(fd, path, status)
        else:
            self.add_file(fd, path, status)
        self.finish()

    def add(self, entry: TarEntry) -> None:
        """Write an entry without data."""
        self._writer.add(entry)

    def finish(self) -> None:
        """Write the end of the archive."""
        self._writer.finish()

    def _tree(self, fd: int, path: bytes, status: os.stat_result) -> None:
        root = openat2.openat2(fd, ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            entry = self._entry(path, DIRECTORY, status)
            entry.xattrs = portable_xattrs(fd)
            self._writer.add(entry)
            for directory_path, directory, entries in walk(root):
                device = os.fstat(directory).st_dev
                if directory_path and (on_kernel_filesystem(directory) or device in self._without):
                    entries.clear()
                    continue
                for name, entry_status in entries:
                    relative = directory_path + b"/" + name if directory_path else name
                    self._add_child(directory, name, _join(path, relative), entry_status)
        finally:
            os.close(root)

    def _add_child(
        self, directory: int, name: bytes, path: bytes, entry_status: os.stat_result
    ) -> None:
        if stat.S_IFMT(entry_status.st_mode) not in TAR_TYPES:
            return
        resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
        try:
            fd = openat2.openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
        except OSError:
            return  # removed meanwhile
        try:
            status = os.fstat(fd)
            excluded = on_kernel_filesystem(fd) or status.st_dev in self._without
            if stat.S_ISDIR(status.st_mode) or not excluded:
                self.add_file(fd, path, status)
        finally:
            os.close(fd)

    def add_file(self, fd: int, path: bytes, status: os.stat_result) -> None:
        """Write one entry: a directory without its entries, nothing for a socket."""
        kind = TAR_TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        entry = self._entry(path, kind, status)
        if self._links.link(entry, status):
            self._writer.add(entry)
            return
        if kind == SYMLINK:
            entry.link = os.readlink(b"", dir_fd=fd)
        elif kind in (REGULAR, DIRECTORY):
            entry.xattrs = portable_xattrs(fd, acl=self._exact)
        if kind != REGULAR:
            self._writer.add(entry)
            return
        # The descriptor names this inode, so the file cannot be replaced before it is read.
        file = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            entry.size = os.fstat(file).st_size
            self._writer.add(entry, read_padded(file, entry.size))
        finally:
            os.close(file)

    def _entry(self, path: bytes, kind: int, status: os.stat_result) -> TarEntry:
        entry = tar_entry(path, kind, status)
        entry.uid, entry.gid = self._owner(status.st_uid, status.st_gid)
        return entry


def _join(path: bytes, relative: bytes) -> bytes:
    return path + relative if path.endswith(b"/") else path + b"/" + relative
