"""Pack a directory into an EROFS metadata image and a blob of file contents.

The blob has the contents of the regular files, each at a multiple of the block size. A file with
holes is stored in chunks, and chunks without data are not in the blob. Contents that were appended
to the blob before, such as those of an archive, are not copied: the files in the directory are
empty files of the same size then.

The directory is not changed, and no process may change it meanwhile. Whiteouts and the attributes
of overlayfs are those of the directory. Labels of SELinux and AppArmor are left out: they belong to
the host.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from jaula.storage import free_space
from jaula.storage.erofs import image
from jaula.storage.erofs.image import BLOCK_SIZE, HOLE, Entry
from jaula.storage.trees import walk, write_all

_LABELS = ("security.selinux", "security.apparmor")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BUFFER = 1 << 20  # bytes
_MIN_SPARSE_CHUNK = 64 << 10  # bytes
_MAX_SPARSE_CHUNKS = 4096
_ANY_FILE_SYSTEM = 2**31 * 10**9  # nanoseconds; later times are clamped by some file systems


def pack(root_fd: int, metadata: BinaryIO, blob: BlobWriter) -> None:
    """Pack the directory ``root_fd``. ``metadata`` is an empty file.

    :raises OSError: when a file cannot be read or written.
    :raises ValueError: when a file exceeds the limits of EROFS.
    """
    entries = list(_entries(root_fd, blob))
    for entry in entries:
        entry.mtime = blob.storable_time(entry.mtime)
    blob.flush()
    image.write(entries, metadata, blob_size=blob.size)


def _entries(root_fd: int, writer: BlobWriter) -> Iterator[Entry]:
    links: dict[tuple[int, int], bytes] = {}
    root = os.fstat(root_fd)
    yield Entry(
        b"", root.st_mode, root.st_uid, root.st_gid, root.st_mtime_ns, _xattrs(b".", root_fd)
    )
    for directory, descriptor, files in walk(root_fd):
        for name, status in files:
            path = directory + b"/" + name if directory else name
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                first = links.setdefault((status.st_dev, status.st_ino), path)
                if first != path:
                    yield Entry(path, 0, hard_link=first)
                    continue
            entry = Entry(
                path,
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                _xattrs(name, descriptor),
            )
            if stat.S_ISREG(status.st_mode):
                _store(entry, descriptor, name, status, writer)
            elif stat.S_ISLNK(status.st_mode):
                entry.link = os.readlink(name, dir_fd=descriptor)
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                entry.rdev = status.st_rdev
            yield entry


def _store(
    entry: Entry, directory: int, name: bytes, status: os.stat_result, writer: BlobWriter
) -> None:
    """Copy a file to the blob, and set size and chunks of its entry."""
    entry.size = status.st_size
    if not entry.size:
        return
    appended = writer.appended.get(status.st_ino)
    if appended is not None:
        entry.chunks = (appended,)
        return
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        if status.st_blocks * 512 >= entry.size:
            entry.chunks = (writer.copy(descriptor, 0, entry.size),)
        else:
            entry.chunk_size = _sparse_chunk(entry.size)
            entry.chunks = tuple(_sparse(descriptor, entry.size, entry.chunk_size, writer))
    finally:
        os.close(descriptor)


def _sparse_chunk(size: int) -> int:
    """Return the chunk size of a file with holes. Pure."""
    return max(_MIN_SPARSE_CHUNK, 1 << (size // _MAX_SPARSE_CHUNKS).bit_length())


def _sparse(descriptor: int, size: int, chunk_size: int, writer: BlobWriter) -> Iterator[int]:
    """Yield the chunks of a file with holes."""
    for start in range(0, size, chunk_size):
        end = min(start + chunk_size, size)
        try:
            data = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size
        yield HOLE if data >= end else writer.copy(descriptor, start, end - start)


def _xattrs(name: bytes, directory: int) -> dict[str, bytes]:
    file = b"/proc/self/fd/%d/%s" % (directory, name)
    try:
        names = os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {
        attribute: os.getxattr(file, attribute, follow_symlinks=False)
        for attribute in names
        if attribute not in _LABELS
    }


class BlobWriter:
    """Appends file contents to a blob. Small files are written together.

    ``size`` is in bytes. ``appended`` has the offsets of contents by the inode number of their
    file, for files of one directory tree.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending = bytearray()
        self._unchecked = 0
        self.size = 0
        self.appended: dict[int, int] = {}

    def append(self, inode: int, size: int, data: Iterable[memoryview]) -> None:
        """Append the contents of the file ``inode``, which are not empty.

        :raises OSError: ENOSPC when too little free space would be left.
        """
        self._reserve(size)
        self.appended[inode] = self.size
        for chunk in data:
            if len(chunk) < _BUFFER:
                self._pending += chunk
                if len(self._pending) >= _BUFFER:
                    self.flush()
            else:
                self.flush()
                write_all(self._fd, chunk)
        self._pad(size)

    def storable_time(self, time: int) -> int:
        """Return a time as the file system of the blob stores it, in nanoseconds.

        A layer that is extracted to that file system again has the same time then.
        """
        if not 0 <= time < _ANY_FILE_SYSTEM:
            os.utime(self._fd, ns=(time, time))
            return os.fstat(self._fd).st_mtime_ns
        return time

    def _reserve(self, size: int) -> None:
        """Check that a file leaves enough free space, at most once in an eighth of it."""
        self._unchecked -= size
        if self._unchecked < 0:
            self._unchecked = free_space.check(self._fd, size) // 8

    def _pad(self, size: int) -> None:
        """Complete the last block after ``size`` bytes."""
        padding = -size % BLOCK_SIZE
        self._pending += bytes(padding)
        self.size += size + padding

    def copy(self, descriptor: int, offset: int, size: int) -> int:
        """Append ``size`` bytes of a file, and return their offset in the blob.

        :raises OSError: ENOSPC when too little free space would be left; EIO when the file is
            shorter.
        """
        self._reserve(size)
        start = self.size
        if size <= _BUFFER:
            data = os.pread(descriptor, size, offset)
            if len(data) == size:
                self._pending += data
                self._pad(size)
                if len(self._pending) >= _BUFFER:
                    self.flush()
                return start
        self.flush()
        left = size
        while left:
            count = self._transfer(descriptor, offset, left)
            if not count:
                raise OSError(errno.EIO, "a file became shorter while it was read")
            offset, left = offset + count, left - count
        self._pad(size)
        return start

    def _transfer(self, descriptor: int, offset: int, size: int) -> int:
        """Copy up to ``size`` bytes, by reflinks where the file system can."""
        try:
            return os.copy_file_range(descriptor, self._fd, min(size, 1 << 30), offset_src=offset)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        data = os.pread(descriptor, min(size, _BUFFER), offset)
        write_all(self._fd, memoryview(data))
        return len(data)

    def flush(self) -> None:
        """Write what is pending."""
        write_all(self._fd, memoryview(self._pending))
        self._pending = bytearray()
