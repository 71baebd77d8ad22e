"""Write layers as zstd:chunked.

Source: containers/storage, ``pkg/chunked/compressor/compressor.go`` and
``pkg/chunked/internal/minimal/compression.go``. Each chunk of a file is a zstd frame, as are the
headers between two files. Skippable frames follow with the TOC, the tar-split data and a footer. So
a decoder of zstd sees the tar, byte for byte. Annotations of the layer have the digest of the TOC
and the positions.

Facts about readers: containers/storage compares the TOC with the tar-split data, entry by entry. It
uses a TOC only if an annotation has its digest; the footer is for tools.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from concurrent.futures import Executor

from jaula.images.chunked.crc64 import Crc64
from jaula.images.chunked.entries import (
    EntryList,
    Names,
    NotIndexable,
    Record,
    describe,
    file_chunks,
    placement,
    time_text,
)
from jaula.images.chunked.part_writer import Compress, Output, PartWriter
from jaula.images.chunked.tar_split import TarSplitWriter
from jaula.images.registry.toc import TOC_LIMIT, ZSTD_CHUNKED_MAGIC
from jaula.spec.image_documents import ZSTD_CHUNKED_DIGEST, ZSTD_CHUNKED_POSITION
from jaula.storage.compression import zstd_module
from jaula.storage.tar.pax import parse_time
from jaula.storage.tar.raw_reader import RawTarReader
from jaula.storage.tar.tar_entry import TarEntry

TAR_SPLIT_POSITION = "io.github.containers.zstd-chunked.tarsplit-position"

_CHUNK = 1 << 19  # bytes
_HEADERS = 1 << 20  # bytes of headers in one frame
_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A50
_FOOTER = struct.Struct("<QQQQQQQ8s")
_TOC_TYPE = 1  # the format of CRFS, the only one
_ZEROS = bytes(_CHUNK)


def write_zstd_chunked(
    reader: RawTarReader,
    output: Output,
    compress: Compress,
    threads: Executor,
    check: Callable[[], None],
) -> dict[str, str]:
    """Write a layer. Return the annotations of its descriptor.

    ``compress`` returns a zstd frame. ``check`` is called between parts and may raise.

    :raises NotIndexable: if a TOC cannot describe the layer. The output is useless then.
    """
    parts = PartWriter(output, compress, threads)
    try:
        return _Writer(reader, parts).write(check)
    finally:
        parts.cancel()


class _CompressedText:
    """A text that is compressed while it is written. ``size`` is the size before: bytes."""

    def __init__(self) -> None:
        self._compressor = zstd_module().ZstdCompressor()
        self._data = bytearray()
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._data += self._compressor.compress(data)
        if len(self._data) > TOC_LIMIT:
            raise NotIndexable(f"its TOC would have more than {TOC_LIMIT} bytes")

    def finish(self) -> bytes:
        return bytes(self._data + self._compressor.flush())


class _Writer:
    def __init__(self, reader: RawTarReader, parts: PartWriter) -> None:
        self._reader = reader
        self._parts = parts
        self._names = Names()
        self._toc = _CompressedText()
        self._tar_split_text = _CompressedText()
        self._tar_split = TarSplitWriter(self._tar_split_text.write)
        self._entries = EntryList(self._toc.write)
        self._headers = bytearray()

    def write(self, check: Callable[[], None]) -> dict[str, str]:
        self._toc.write(b'{"version":1,"entries":[')
        for entry in self._reader:
            check()
            self._add(entry, check)
        self._segment(self._reader.take_raw())
        for part in self._reader.tail():
            check()
            self._segment(bytes(part))
        self._flush_headers()
        self._parts.flush()
        self._entries.finish()
        return self._finish()

    def _segment(self, data: bytes) -> None:
        self._tar_split.segment(data)
        self._headers += data
        if len(self._headers) >= _HEADERS:
            self._flush_headers()

    def _flush_headers(self) -> None:
        if self._headers:
            self._parts.add(self._headers)
            self._headers = bytearray()

    def _add(self, entry: TarEntry, check: Callable[[], None]) -> None:
        self._segment(self._reader.take_raw())
        document = describe(self._reader, entry, self._names)
        document["modtime"] = time_text(entry.mtime, entry.name, fraction=True)
        for key, member in ((b"atime", "accesstime"), (b"ctime", "changetime")):
            if value := self._reader.records.get(key):
                document[member] = time_text(parse_time(value), entry.name, fraction=True)
        size = document.get("size", 0)
        record = Record(document)
        self._entries.add(record)
        if size:
            self._flush_headers()
            checksum = self._contents(record, size, check)
        else:
            checksum = b""
        self._tar_split.file(document["name"], size, checksum)

    def _contents(self, record: Record, size: int, check: Callable[[], None]) -> bytes:
        """Write the chunks of a file. Return its CRC-64."""
        main, name = record.documents[0], record.documents[0]["name"]
        content, checksum, position = hashlib.sha256(), Crc64(), 0
        for data in file_chunks(self._reader, _CHUNK):
            check()
            content.update(data)
            checksum.update(data)
            document = main if not position else {"type": "chunk", "name": name}
            if position:
                document["chunkOffset"] = position
                record.documents.append(document)
            if len(data) < size:
                document["chunkSize"] = len(data)
                document["chunkDigest"] = "sha256:" + hashlib.sha256(data).hexdigest()
                if data == _ZEROS[: len(data)]:
                    document["chunkType"] = "zeros"
            position += len(data)
            record.unplaced += 1
            self._parts.add(data, placement(record, document, with_end=True))
        main["digest"] = "sha256:" + content.hexdigest()
        return checksum.digest()

    def _finish(self) -> dict[str, str]:
        """Write the skippable frames. Return the annotations."""
        tar_split = self._tar_split_text.finish()
        digest = hashlib.sha256(tar_split).hexdigest()
        self._toc.write(b'],"tarSplitDigest":"sha256:%b"}' % digest.encode())
        toc = self._toc.finish()
        toc_start = self._skippable(toc)
        tar_split_start = self._skippable(tar_split)
        sizes = (toc_start, len(toc), self._toc.size)
        split_sizes = (tar_split_start, len(tar_split), self._tar_split_text.size)
        self._skippable(_FOOTER.pack(*sizes, _TOC_TYPE, *split_sizes, ZSTD_CHUNKED_MAGIC))
        return {
            ZSTD_CHUNKED_DIGEST: "sha256:" + hashlib.sha256(toc).hexdigest(),
            ZSTD_CHUNKED_POSITION: ":".join(map(str, (*sizes, _TOC_TYPE))),
            TAR_SPLIT_POSITION: ":".join(map(str, split_sizes)),
        }

    def _skippable(self, data: bytes) -> int:
        """Write a skippable frame. Return the position of its data."""
        self._parts.write(_SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(data)))
        start = self._parts.position
        self._parts.write(data)
        return start
