"""Write layers as eStargz.

Source: containerd/stargz-snapshotter, ``docs/estargz.md``. Each chunk of a file begins a gzip
member, which also has the headers after it. The last file of the tar is the TOC,
``stargz.index.json``, in a member of its own. An empty member, the footer, has its position. A
landmark file is the first entry: without a list of prioritized files, nothing is to be prefetched.
An annotation of the layer has the digest of the TOC.

So the tar has two more files than before, and another diff id. Existing files with their names are
left out, since a layer may be converted twice.
"""

from __future__ import annotations

import hashlib
import posixpath
import struct
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple

from jaula.images.chunked.entries import (
    EntryList,
    Names,
    Record,
    describe,
    file_chunks,
    placement,
    time_text,
)
from jaula.images.chunked.part_writer import Compress, Output, PartWriter
from jaula.images.registry.toc import ESTARGZ_TOC_NAME, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK
from jaula.spec.image_documents import ESTARGZ_DIGEST
from jaula.storage.tar.raw_reader import RawTarReader
from jaula.storage.tar.tar_entry import BLOCK, REGULAR, TarEntry
from jaula.storage.tar.tar_writer import TarWriter, new_entry

UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"

_TOC_NAME = ESTARGZ_TOC_NAME.decode()
_LANDMARK_CONTENT = b"\x0f"
_RESERVED = frozenset(
    b"/" + name.encode() for name in (_TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK)
)
_CHUNK = 1 << 22  # bytes, the default of the snapshotter
_HEADERS = 1 << 20  # bytes of headers in one member


class Stargz(NamedTuple):
    """A written layer: the diff id of its tar, and the annotations of its descriptor."""

    diff_id: str
    annotations: dict[str, str]


def write_estargz(
    reader: RawTarReader,
    output: Output,
    compress: Compress,
    threads: Executor,
    check: Callable[[], None],
) -> Stargz:
    """Write a layer. ``compress`` returns a gzip member.

    ``check`` is called between parts and may raise.

    :raises NotIndexable: if a TOC cannot describe the layer. The output is useless then.
    """
    parts = PartWriter(output, compress, threads)
    try:
        return _Writer(reader, parts).write(check)
    finally:
        parts.cancel()


class _Writer:
    def __init__(self, reader: RawTarReader, parts: PartWriter) -> None:
        self._reader = reader
        self._parts = parts
        self._names = Names()
        self._toc = bytearray(b'{"version":1,"entries":[')
        self._entries = EntryList(self._toc.extend)
        self._member = bytearray()  # the next one, without the present chunk
        self._placed: Callable[[int, int], None] | None = None
        self._tar = hashlib.sha256()
        self._size = 0
        self._chunk_size = 0  # bytes of the member that are a chunk
        self._padding = 0  # bytes after the last entry
        self._keeps = True  # whether the last entry is written

    def write(self, check: Callable[[], None]) -> Stargz:
        self._landmark()
        for entry in self._reader:
            check()
            self._add(entry, check)
        self._next_raw()  # the end of the archive moves behind the TOC
        for _ in self._reader.tail():
            check()
        self._flush()
        self._parts.flush()
        self._entries.finish()
        return self._finish()

    def _append(self, data: bytes | memoryview) -> None:
        self._tar.update(data)
        self._size += len(data)
        self._member += data

    def _flush(self) -> None:
        """End the member."""
        if self._member:
            self._parts.add(self._member, self._placed)
            self._member = bytearray()
        self._placed, self._chunk_size = None, 0

    def _landmark(self) -> None:
        parts: list[bytes] = []
        writer = TarWriter(lambda data: parts.append(bytes(data)))
        writer.add(
            new_entry(NO_PREFETCH_LANDMARK, size=len(_LANDMARK_CONTENT)), (_LANDMARK_CONTENT,)
        )
        writer.finish()
        archive = b"".join(parts)
        self._append(archive[:BLOCK])
        document = {"type": "reg", "name": NO_PREFETCH_LANDMARK, "mode": 0o644, "size": 1}
        record = Record(document)
        self._entries.add(record)
        self._chunk(record, document, _LANDMARK_CONTENT)
        document["digest"] = document["chunkDigest"]
        self._append(archive[BLOCK + 1 : 2 * BLOCK])

    def _chunk(self, record: Record, document: dict[str, Any], data: bytes) -> None:
        """Begin a member with a chunk of a file."""
        self._flush()
        document["chunkDigest"] = "sha256:" + hashlib.sha256(data).hexdigest()
        record.unplaced += 1
        self._placed = placement(record, document)
        self._append(data)
        self._chunk_size = len(data)

    def _add(self, entry: TarEntry, check: Callable[[], None]) -> None:
        headers = self._next_raw()
        self._padding = -entry.size % BLOCK if entry.type == REGULAR else 0
        self._keeps = posixpath.normpath(b"/" + entry.name) not in _RESERVED
        if not self._keeps:
            for _ in self._reader.data():
                check()
            return
        self._append(headers)
        if len(self._member) - self._chunk_size >= _HEADERS:
            self._flush()
        document = describe(self._reader, entry, self._names)
        document["modtime"] = time_text(entry.mtime, entry.name, fraction=False)
        record = Record(document)
        self._entries.add(record)
        if entry.type == REGULAR:
            self._contents(record, entry.size, check)

    def _next_raw(self) -> bytes:
        """Return the headers before an entry, or the end. Write the padding of the last entry."""
        raw = self._reader.take_raw()
        if self._keeps:
            self._append(raw[: self._padding])
        return raw[self._padding :]

    def _contents(self, record: Record, size: int, check: Callable[[], None]) -> None:
        """Write the chunks of a file."""
        main, name = record.documents[0], record.documents[0]["name"]
        content, position = hashlib.sha256(), 0
        for data in file_chunks(self._reader, _CHUNK):
            check()
            if size > _CHUNK:
                content.update(data)
            document = main if not position else {"type": "chunk", "name": name}
            if position:
                document["chunkOffset"] = position
                record.documents.append(document)
            if len(data) == _CHUNK:
                document["chunkSize"] = len(data)  # absent: up to the end of the file
            position += len(data)
            self._chunk(record, document, data)
        is_one_chunk = 0 < size <= _CHUNK
        main["digest"] = main["chunkDigest"] if is_one_chunk else "sha256:" + content.hexdigest()

    def _finish(self) -> Stargz:
        """Write the TOC and the footer."""
        start = self._parts.position
        self._toc += b"]}"
        digest = "sha256:" + hashlib.sha256(self._toc).hexdigest()
        writer = TarWriter(self._append)
        writer.add(new_entry(_TOC_NAME, mode=0o444, size=len(self._toc)), (memoryview(self._toc),))
        writer.finish()
        self._toc = bytearray()  # it may be large, and the member is a copy
        self._flush()
        self._parts.flush()
        self._parts.write(_footer(start))
        return Stargz(
            "sha256:" + self._tar.hexdigest(),
            {
                ESTARGZ_DIGEST: digest,
                UNCOMPRESSED_SIZE: str(self._size),
            },
        )


def _footer(toc: int) -> bytes:
    """Return an empty gzip member whose extra field has the position of the TOC (RFC 1952)."""
    subfield = b"%016xSTARGZ" % toc
    extra = b"SG" + struct.pack("<H", len(subfield)) + subfield
    header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra
    return header + b"\x01\0\0\xff\xff" + bytes(8)
