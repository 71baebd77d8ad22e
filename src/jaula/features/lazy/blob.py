"""The blob device of a lazy layer: uncompressed contents, from chunks of the compressed blob.

The compressed blob is a sparse file that fills up in two ways: a read fetches the chunks that it
needs, and one thread fetches the rest in order. A chunk that another layer on the disk has is read
from there, and not fetched. Nothing on the disk says what the file has. A chunk
is decompressed and compared with its SHA-256 at each read from the file, so a hole or a damaged
block after a crash is fetched again and never served.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from jaula.errors import InvalidRequest, JaulaError
from jaula.features.lazy.metadata import Extent
from jaula.images.registry.toc import Chunk
from jaula.storage.compression import decompress_stream

_FETCH = 512 << 10  # bytes of the blob that one request for a chunk fetches at least

Fetch = Callable[[int, int], bytes]
"""Returns ``length`` bytes of the blob from an offset on; raises JaulaError."""

Stored = Callable[[str, int], bytes | None]
"""Returns the content of a chunk with a digest and a size, None if no other layer has it."""


class ByteRanges:
    """Disjoint ranges of a file that are present, as sorted pairs of begin and end."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def add(self, begin: int, end: int) -> None:
        first = bisect_right(self._ranges, (begin,))
        if first and self._ranges[first - 1][1] >= begin:
            first -= 1
        last = first
        while last < len(self._ranges) and self._ranges[last][0] <= end:
            begin, end = min(begin, self._ranges[last][0]), max(end, self._ranges[last][1])
            last += 1
        del self._ranges[first:last]
        insort(self._ranges, (begin, end))

    def contains(self, begin: int, end: int) -> bool:
        index = bisect_right(self._ranges, (begin, 1 << 64)) - 1
        return index >= 0 and self._ranges[index][1] >= end

    def gap(self, begin: int, end: int) -> tuple[int, int] | None:
        """Return the first range of ``begin`` to ``end`` that is absent, None if there is none."""
        for low, high in self._ranges:
            if high <= begin:
                continue
            if low > begin:
                return (begin, min(low, end)) if begin < end else None
            begin = high
        return (begin, end) if begin < end else None

    def total(self) -> int:
        return sum(end - begin for begin, end in self._ranges)

    def clear(self) -> None:
        self._ranges.clear()


class LazyBlob:
    """The contents of one layer. Methods may be called from several threads."""

    def __init__(
        self,
        file: int,
        size: int,
        extents: Sequence[Extent],
        fetch: Fetch,
        report: Callable[[str, str], None],
        *,
        stored: Stored = lambda digest, size: None,
        cache: int = 32 << 20,
    ) -> None:
        """Serve ``extents`` from the sparse ``file`` of a blob with ``size`` bytes.

        ``report`` is called with the path of a file that cannot be read, and the reason. ``cache``
        is the number of bytes of decompressed chunks that are kept between two reads.
        """
        self.size = size
        self.active = 0  # reads that wait for the network
        self.resumed = False  # the file may have parts that a former process has fetched
        self._file = file
        self._extents = extents
        self._offsets = [extent.offset for extent in extents]
        self._fetch = fetch
        self._report = report
        self._other_layers = stored
        self._lock = threading.Lock()
        self._present = ByteRanges()
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._cached = 0
        self._cache_limit = cache
        self._used = False
        self._busy: dict[int, threading.Lock] = {}

    # -- the compressed blob --------------------------------------------------------------------

    def store(self, offset: int, data: bytes) -> None:
        """Write a part of the blob to the file.

        :raises OSError: when the disk is full.
        """
        view, position = memoryview(data), offset
        while view:
            written = os.pwrite(self._file, view, position)
            view, position = view[written:], position + written
        with self._lock:
            self._present.add(offset, position)

    def gap(self, begin: int, end: int) -> tuple[int, int] | None:
        """Return the first part of a range of the blob that is absent, None if there is none."""
        with self._lock:
            return self._present.gap(begin, end)

    def missing(self) -> int:
        """Return the number of bytes of the blob that are absent."""
        with self._lock:
            return self.size - self._present.total()

    def digest(self) -> str:
        """Return the digest of the whole file."""
        digest = hashlib.sha256()
        position = 0
        while data := os.pread(self._file, 1 << 20, position):
            digest.update(data)
            position += len(data)
        return "sha256:" + digest.hexdigest()

    def forget(self) -> None:
        """Fetch everything again from now on: the file has other bytes than the blob."""
        self.resumed = False
        with self._lock:
            self._present.clear()

    def find_present(self) -> None:
        """Find the parts of the blob that a former process has fetched.

        The bytes between two chunks count as present if they are not a hole, and both chunks are.
        They are not verified here: :meth:`digest` is for the whole.
        """
        end = 0  # of the chunk before, or of the blob's beginning, if that is present
        for chunk in sorted(e.chunk for e in self._extents if e.chunk.length):
            begin = chunk.offset
            try:
                decompress_chunk(self._stored(chunk), chunk)
                if 0 <= end < begin and any(os.pread(self._file, begin - end, end)):
                    begin = end
            except (InvalidRequest, OSError):
                end = -1
                continue
            end = chunk.offset + chunk.length
            with self._lock:
                self._present.add(begin, end)

    # -- the device -----------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the device. Between files it has zeros.

        :raises OSError: EIO, when a chunk cannot be fetched or is not what the TOC says.
        """
        self._used = True
        out = bytearray(size)
        end = offset + size
        for number in self._numbers(offset, end):
            extent = self._extents[number]
            if not extent.chunk.length:
                continue  # zeros
            content = self._content(number)
            first = max(offset, extent.offset)
            last = min(end, extent.offset + extent.chunk.size)
            out[first - offset : last - offset] = content[
                first - extent.offset : last - extent.offset
            ]
        return bytes(out)

    def _numbers(self, offset: int, end: int) -> Iterator[int]:
        """Yield the numbers of the extents in a range of the device."""
        number = max(0, bisect_right(self._offsets, offset) - 1)
        while number < len(self._extents) and self._offsets[number] < end:
            extent = self._extents[number]
            if extent.offset + extent.chunk.size > offset:
                yield number
            number += 1

    def _content(self, number: int) -> bytes:
        """Return the verified content of an extent."""
        with self._lock:
            content = self._cache.get(number)
            if content is not None:
                self._cache.move_to_end(number)
                return content
            busy = self._busy.setdefault(number, threading.Lock())
        with busy:  # one thread decompresses a chunk
            with self._lock:
                content = self._cache.get(number)
            if content is None:
                content = self._verified(self._extents[number])
                self._keep(number, content)
            with self._lock:
                self._busy.pop(number, None)
            return content

    def _keep(self, number: int, content: bytes) -> None:
        with self._lock:
            self._cache[number] = content
            self._cached += len(content)
            while self._cached > self._cache_limit and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached -= len(dropped)

    def trim(self) -> None:
        """Release the decompressed chunks if nothing was read since the last call."""
        with self._lock:
            if not self._used:
                self._cache.clear()
                self._cached = 0
            self._used = False

    def _verified(self, extent: Extent) -> bytes:
        chunk = extent.chunk
        try:
            with self._lock:
                stored = self._present.contains(chunk.offset, chunk.offset + chunk.length)
            if stored or self.resumed:
                try:
                    return decompress_chunk(self._stored(chunk), chunk)
                except InvalidRequest:  # absent, lost by the disk, or the download was wrong
                    pass
            content = self._other_layers(chunk.digest, chunk.size)
            if content is not None:
                return content
            return decompress_chunk(self._fetched(chunk), chunk)
        except JaulaError as error:
            reason = error.message
        except OSError as error:
            reason = error.strerror or str(error)
        path = "/" + extent.path.decode(errors="backslashreplace")
        self._report(path, reason)
        raise OSError(errno.EIO, f"{path}: {reason}")

    def _stored(self, chunk: Chunk) -> bytes:
        return os.pread(self._file, chunk.length, chunk.offset)

    def _fetched(self, chunk: Chunk) -> bytes:
        """Fetch a chunk, with what follows it in the blob: files that are read next, often."""
        length = min(max(chunk.length, _FETCH), self.size - chunk.offset)
        with self._lock:
            gap = self._present.gap(chunk.offset + chunk.length, chunk.offset + length)
            self.active += 1
        try:
            if gap is None or gap[0] != chunk.offset + chunk.length:
                length = chunk.length
            data = self._fetch(chunk.offset, length)
        finally:
            with self._lock:
                self.active -= 1
        self.store(chunk.offset, data)
        return data[: chunk.length]


def decompress_chunk(data: bytes, chunk: Chunk) -> bytes:
    """Return the content of a chunk from its compressed bytes, after verifying its digest.

    :raises InvalidRequest: if it cannot be decompressed, or has another digest.
    """
    stream, _ = decompress_stream(io.BytesIO(data))
    needed = chunk.inner_offset + chunk.size
    content = bytearray()
    while len(content) < needed and (part := stream.read(needed - len(content))):
        content += part
    result = bytes(content[chunk.inner_offset :])
    if len(result) != chunk.size or "sha256:" + hashlib.sha256(result).hexdigest() != chunk.digest:
        raise InvalidRequest(f"the chunk at {chunk.offset} does not have the digest of the TOC")
    return result
