"""Pack a directory into an EROFS metadata image and a blob of file contents.

The blob has the contents of the regular files, each at a multiple of the block size. Contents are
stored in chunks (:mod:`jaula.storage.erofs.chunks`). A chunk that the blob has already, or the blob
of another layer, is not stored again. Holes are not in the blob. Contents that were appended to the
blob before, such as those of an archive, are not copied: the files in the directory are empty files
of the same size then.

The directory is not changed, and no process may change it meanwhile. Whiteouts and the attributes
of overlayfs are those of the directory. Labels of SELinux and AppArmor are left out: they belong to
the host.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from jaula.storage import free_space
from jaula.storage.erofs import chunks, erofs_image
from jaula.storage.erofs.chunks import CHUNK_SIZE, OWN, Chunk, SharedBlobs
from jaula.storage.erofs.erofs_image import BLOCK_SIZE, HOLE, Entry
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
    erofs_image.write(entries, metadata, blob_size=blob.size, shared_sizes=blob.shared_sizes)


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
    if appended is None:
        descriptor = os.open(name, _READ, dir_fd=directory)
        try:
            appended = _copy(descriptor, status, writer)
        finally:
            os.close(descriptor)
    entry.chunks, entry.devices, entry.chunk_size = appended


def _copy(descriptor: int, status: os.stat_result, writer: BlobWriter) -> Contents:
    size = status.st_size
    if status.st_blocks * 512 < size:
        chunk_size = _sparse_chunk(size)
        return Contents.of(_sparse(descriptor, size, chunk_size, writer), chunk_size)
    places = [
        writer.copy(descriptor, start, min(CHUNK_SIZE, size - start))
        for start in range(0, size, CHUNK_SIZE)
    ]
    return Contents.of(places, CHUNK_SIZE)


def _sparse_chunk(size: int) -> int:
    """Return the chunk size of a file with holes. Pure."""
    return max(_MIN_SPARSE_CHUNK, 1 << (size // _MAX_SPARSE_CHUNKS).bit_length())


def _sparse(descriptor: int, size: int, chunk_size: int, writer: BlobWriter) -> Iterator[Place]:
    """Yield the places of the chunks of a file with holes."""
    for start in range(0, size, chunk_size):
        end = min(start + chunk_size, size)
        try:
            data = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size
        yield (OWN, HOLE) if data >= end else writer.copy(descriptor, start, end - start)


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


Place = tuple[int, int]
"""The device of a chunk, and its offset there in bytes."""


class Contents(NamedTuple):
    """The chunks of a file, as the fields of :class:`jaula.storage.erofs.erofs_image.Entry`."""

    chunks: tuple[int, ...]
    devices: tuple[int, ...]
    chunk_size: int

    @classmethod
    def of(cls, places: Iterable[Place], chunk_size: int) -> Contents:
        """Return the contents of a file from the places of its chunks. Pure.

        A single chunk has the size of the file.
        """
        devices, offsets = zip(*places, strict=True)
        own = all(device == OWN for device in devices)
        return cls(offsets, () if own else devices, chunk_size if len(offsets) > 1 else 0)


class BlobWriter:
    """Appends file contents to a blob. Small files are written together.

    ``size`` is the blob's in bytes, ``stored`` the bytes of contents in it. ``appended`` has the
    contents by the inode number of their file, for files of one directory tree. ``chunks`` are the
    chunks of all files, each once.
    """

    def __init__(self, fd: int, shared: SharedBlobs | None = None) -> None:
        self._fd = fd
        self._shared = shared
        self._pending = bytearray()
        self._unchecked = 0
        self._places: dict[bytes, Place] = {}
        self.size = self.stored = 0
        self.appended: dict[int, Contents] = {}
        self.chunks: list[Chunk] = []

    @property
    def shared_sizes(self) -> Sequence[int]:
        """The bytes of the blobs of other layers, from device 2 on."""
        return self._shared.sizes if self._shared is not None else ()

    def append(self, inode: int, size: int, data: Iterable[memoryview]) -> None:
        """Append the contents of the file ``inode``, which are not empty.

        :raises OSError: ENOSPC when too little free space would be left.
        """
        self._reserve(size)
        places = []
        chunk = bytearray()
        for view in data:
            position = 0
            while position < len(view):
                part = view[position : position + CHUNK_SIZE - len(chunk)]
                position += len(part)
                chunk += part
                if len(chunk) == CHUNK_SIZE:
                    places.append(self._store(chunk))
                    chunk = bytearray()
        if chunk:
            places.append(self._store(chunk))
        self.appended[inode] = Contents.of(places, CHUNK_SIZE)

    def copy(self, descriptor: int, offset: int, size: int) -> Place:
        """Append ``size`` bytes of a file as one chunk, and return its place.

        :raises OSError: ENOSPC when too little free space would be left; EIO when the file is
            shorter.
        """
        self._reserve(size)
        if size > CHUNK_SIZE:  # of a file with holes and more than 16 GiB
            start = self.size
            self._transfer(descriptor, offset, size)
            return OWN, start
        data = os.pread(descriptor, size, offset)
        if len(data) != size:
            raise OSError(errno.EIO, "a file became shorter while it was read")
        return self._store(data, (descriptor, offset))

    def storable_time(self, time: int) -> int:
        """Return a time as the file system of the blob stores it, in nanoseconds.

        A layer that is extracted to that file system again has the same time then.
        """
        if not 0 <= time < _ANY_FILE_SYSTEM:
            os.utime(self._fd, ns=(time, time))
            return os.fstat(self._fd).st_mtime_ns
        return time

    def flush(self) -> None:
        """Write what is pending."""
        write_all(self._fd, memoryview(self._pending))
        self._pending = bytearray()

    def _reserve(self, size: int) -> None:
        """Check that a file leaves enough free space, at most once in an eighth of it."""
        self._unchecked -= size
        if self._unchecked < 0:
            self._unchecked = free_space.check(self._fd, size) // 8

    def _store(self, data: bytes | bytearray, source: tuple[int, int] | None = None) -> Place:
        """Return the place of a chunk, which is appended if no blob has it.

        ``source`` is a file that has the chunk, and its offset there.
        """
        digest = hashlib.sha256(data).digest()
        place = self._places.get(digest)
        if place is not None:
            return place
        key = chunks.key(digest)
        if self._shared is not None:
            place = self._shared.find(key, data)
        if place is None:
            place = OWN, self.size
            self.stored += len(data)
            if len(data) < _BUFFER:
                self._pending += data
                self._pad(len(data))
                if len(self._pending) >= _BUFFER:
                    self.flush()
            elif source is not None:
                self._transfer(*source, len(data))
            else:
                self.flush()
                write_all(self._fd, memoryview(data))
                self._pad(len(data))
        self._places[digest] = place
        self.chunks.append(Chunk(key, *place, len(data)))
        return place

    def _pad(self, size: int) -> None:
        """Complete the last block after ``size`` bytes."""
        padding = -size % BLOCK_SIZE
        self._pending += bytes(padding)
        self.size += size + padding

    def _transfer(self, descriptor: int, offset: int, size: int) -> None:
        """Append a part of a file, by reflinks where the file system can.

        :raises OSError: EIO when the file is shorter.
        """
        self.flush()
        left = size
        while left:
            count = self._transfer_part(descriptor, offset, left)
            if not count:
                raise OSError(errno.EIO, "a file became shorter while it was read")
            offset, left = offset + count, left - count
        self._pad(size)

    def _transfer_part(self, descriptor: int, offset: int, size: int) -> int:
        try:
            return os.copy_file_range(descriptor, self._fd, min(size, 1 << 30), offset_src=offset)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        data = os.pread(descriptor, min(size, _BUFFER), offset)
        write_all(self._fd, memoryview(data))
        return len(data)
