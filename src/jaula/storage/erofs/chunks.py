"""Chunks of file contents, and blobs of other layers that have them already.

A chunk is a file, or a part of :data:`CHUNK_SIZE` bytes of a larger file. A layer refers to a blob
by a hard link in its directory: ``blob.2`` is device 2 of its image, and so on. So a blob stays on
the disk as long as a layer refers to it. The file ``chunks`` of a layer lists the chunks of its
image and their places.

A chunk is shared after its bytes were compared. So neither a stale index nor a damaged blob can
give a file wrong contents.

Locks (flock(2)) of a blob: a layer that is being made holds a shared lock of each blob that it
refers to, until it has its name. A process that frees chunks of a blob holds an exclusive one.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from jaula.errors import CorruptState
from jaula.kernel import fallocate, fsverity
from jaula.storage.erofs.erofs_image import BLOCK_SIZE, MAX_DEVICES
from jaula.storage.file_errors import DAMAGED_DISK

_log = logging.getLogger("jaula.storage")

CHUNK_SIZE = 4 << 20  # bytes, as the chunks of eStargz
LIST = "chunks"
BLOB = "blob"
OWN = 1  # device

_NAMES_LIMIT = 10_000  # links of a blob; ext4 has 65,000
_OPEN_LIMIT = 64  # blobs that are opened for comparison
_CANDIDATES = 4
_KEY_SIZE = 16  # bytes
_MAGIC = b"jaulachk"
_HEADER = struct.Struct("<8sII")  # magic, number of chunks, CRC-32 of the records
_RECORD = struct.Struct("<16sHxxII")  # key, device, block, size
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Chunk(NamedTuple):
    """A chunk of an image.

    ``key`` is the beginning of its SHA-256. ``offset`` and ``size`` are in bytes.
    """

    key: bytes
    device: int
    offset: int
    size: int


class Candidate(NamedTuple):
    """The place of a chunk in a layer's directory ``layer``."""

    layer: str
    device: int
    offset: int
    size: int


Lookup = Callable[[bytes], Iterable[Candidate]]
"""Returns the places of chunks with a key."""


def key(digest: bytes) -> bytes:
    """Return the key of a chunk with a SHA-256. Pure."""
    return digest[:_KEY_SIZE]


def blob_name(device: int) -> str:
    """Return the name of a device's blob in a layer's directory. Pure."""
    return BLOB if device == OWN else f"{BLOB}.{device}"


# -- the list of a layer ------------------------------------------------------------------------


def encode(chunks: Iterable[Chunk]) -> bytes:
    """Return the content of a list. Pure."""
    records = b"".join(
        _RECORD.pack(each.key, each.device, each.offset // BLOCK_SIZE, each.size) for each in chunks
    )
    return _HEADER.pack(_MAGIC, len(records) // _RECORD.size, zlib.crc32(records)) + records


def decode(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a list. Pure.

    :raises CorruptState: when it is damaged. Nothing is yielded then.
    """
    if len(data) < _HEADER.size:
        raise CorruptState(f"the file {LIST} of the layer is damaged")
    magic, count, checksum = _HEADER.unpack_from(data)
    records = memoryview(data)[_HEADER.size :]
    if (magic, count * _RECORD.size, checksum) != (_MAGIC, len(records), zlib.crc32(records)):
        raise CorruptState(f"the file {LIST} of the layer is damaged")
    return (
        Chunk(each, device, block * BLOCK_SIZE, size)
        for each, device, block, size in _RECORD.iter_unpack(records)
    )


def write_list(directory: int, chunks: Iterable[Chunk]) -> None:
    """Write the list of a new layer."""
    with os.fdopen(os.open(LIST, _NEW, 0o600, dir_fd=directory), "wb") as file:
        file.write(encode(chunks))


def read_list(directory: int) -> Iterator[Chunk]:
    """Yield the chunks of the layer in ``directory``.

    :raises CorruptState: when the list is missing or damaged.
    """
    try:
        with os.fdopen(os.open(LIST, _READ, dir_fd=directory), "rb") as file:
            return decode(file.read())
    except FileNotFoundError:
        raise CorruptState(f"the file {LIST} of the layer is missing") from None


# -- blobs of other layers ----------------------------------------------------------------------


class _Blob:
    """An open blob. ``device`` is 0 until the new layer refers to it."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.device = 0


class SharedBlobs:
    """The blobs of other layers to which a new layer refers."""

    def __init__(
        self, layers: int, directory: int, lookup: Lookup, *, verity: bool, without: str = ""
    ) -> None:
        """Link blobs to ``directory`` of a new layer; ``layers`` is the directory of all layers.

        With ``verity`` only blobs with fs-verity are used. The layer ``without`` is not used: it
        is the one that the new layer replaces.
        """
        self._layers = os.dup(layers)
        self._directory = os.dup(directory)
        self._lookup = lookup
        self._verity = verity
        self._without = without
        self._by_place: dict[tuple[str, int], _Blob | None] = {}
        self._by_inode: dict[tuple[int, int], _Blob] = {}
        self.sizes: list[int] = []
        """The bytes of the devices 2 and up."""

    def find(self, chunk: bytes, data: bytes | bytearray) -> tuple[int, int] | None:
        """Return device and offset of a chunk with the content ``data``, None if there is none."""
        candidates = [each for each in self._lookup(chunk) if each.size == len(data)]
        if not candidates:
            return None
        candidates.sort(key=self._is_closed)  # stable: a blob in use before another one
        for each in candidates[:_CANDIDATES]:
            blob = self._open(each)
            if blob is None or each.offset + each.size > blob.size:
                continue
            try:
                content = os.pread(blob.descriptor, each.size, each.offset)
            except OSError as error:
                if error.errno not in DAMAGED_DISK:
                    raise
                _log.warning("cannot read a chunk of layer %s: %s", each.layer, error.strerror)
                continue
            if content == data and self._refer(blob):
                return blob.device, each.offset
        return None

    def _is_closed(self, candidate: Candidate) -> bool:
        blob = self._by_place.get((candidate.layer, candidate.device))
        return blob is None or not blob.device

    def _open(self, candidate: Candidate) -> _Blob | None:
        """Return the blob of a candidate with a shared lock, None if it cannot be used."""
        place = candidate.layer, candidate.device
        if place in self._by_place:
            return self._by_place[place]
        if candidate.layer == self._without or len(self._by_inode) >= _OPEN_LIMIT:
            return None
        blob = None
        try:
            path = f"{candidate.layer}/{blob_name(candidate.device)}"
            descriptor = os.open(path, _READ, dir_fd=self._layers)
        except FileNotFoundError:  # the layer was removed
            self._by_place[place] = None
            return None
        status = os.fstat(descriptor)
        blob = self._by_inode.get((status.st_dev, status.st_ino))
        if (
            blob is not None
            or status.st_nlink > _NAMES_LIMIT
            or (self._verity and not _has_verity(descriptor))
        ):
            os.close(descriptor)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            blob = _Blob(descriptor, status.st_size)
            self._by_inode[status.st_dev, status.st_ino] = blob
        self._by_place[place] = blob
        return blob

    def _refer(self, blob: _Blob) -> bool:
        """Make a blob a device of the new layer, and return whether it is one."""
        if blob.device:
            return True
        if len(self.sizes) + OWN >= MAX_DEVICES:
            return False
        device = len(self.sizes) + OWN + 1
        try:
            # The compared file gets the name, not the one that has the other name by now.
            os.link(
                f"/proc/self/fd/{blob.descriptor}", blob_name(device), dst_dir_fd=self._directory
            )
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EMLINK):  # removed meanwhile; too many
                raise
            return False
        blob.device = device
        self.sizes.append(blob.size)
        return True

    def release(self) -> list[int]:
        """End the locks. Return the blobs whose own layer was removed, for the caller to close.

        Its removal could not free their chunks while they were locked.
        """
        for blob in self._by_inode.values():
            fcntl.flock(blob.descriptor, fcntl.LOCK_UN)
        owned = {id(blob) for place, blob in self._by_place.items() if self._is_own(place, blob)}
        orphans = []
        for blob in self._by_inode.values():
            if id(blob) in owned:
                os.close(blob.descriptor)
            else:
                orphans.append(blob.descriptor)
        self._by_inode.clear()
        self._by_place.clear()
        os.close(self._layers)
        os.close(self._directory)
        return orphans

    def _is_own(self, place: tuple[str, int], blob: _Blob | None) -> bool:
        """Return whether a place is that of the blob in its own layer, which exists."""
        layer, device = place
        if blob is None or device != OWN:
            return False
        try:
            status = os.stat(f"{layer}/{blob_name(device)}", dir_fd=self._layers)
        except FileNotFoundError:
            return False
        return os.path.samestat(status, os.fstat(blob.descriptor))


def _has_verity(descriptor: int) -> bool:
    try:
        fsverity.measure(descriptor)
    except OSError as error:
        if error.errno in (errno.ENODATA, *fsverity.UNSUPPORTED):
            return False
        raise
    return True


# -- chunks without a layer ---------------------------------------------------------------------


def punch(descriptor: int, used: Iterable[tuple[int, int]]) -> None:
    """Free the blocks of a blob except the ranges ``used``, pairs of offset and size in bytes.

    A file with fs-verity cannot be changed, and stays whole.
    """
    try:
        writer = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return  # fs-verity
    try:
        for offset, size in gaps(used, os.fstat(writer).st_size):
            fallocate.punch_hole(writer, offset, size)
    finally:
        os.close(writer)


def gaps(used: Iterable[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """Yield offset and size of the blocks before ``end`` that no range touches. Pure."""
    position = 0
    for offset, size in sorted(used):
        if min(offset, end) > position:
            yield position, min(offset, end) - position
        position = max(position, -(-(offset + size) // BLOCK_SIZE) * BLOCK_SIZE)
    if end > position:
        yield position, end - position
