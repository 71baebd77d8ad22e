"""The table of contents (TOC) of a layer: eStargz and zstd:chunked.

Sources: containerd/stargz-snapshotter ``docs/estargz.md`` and containers/storage
``pkg/chunked/internal/minimal/compression.go``. Both formats are a compressed tar in which each
file, or each chunk of a file, begins a gzip member or zstd frame. The TOC at the end is a JSON
document with the metadata of all entries, the offsets of the chunks in the blob, and the SHA-256
digests of their contents. An annotation of the layer in the manifest has the digest of the TOC.

* eStargz: the TOC is a gzip member with a tar of one file, ``stargz.index.json``. The last 51 bytes
  of the blob, an empty gzip member, have its offset. The annotation is the digest of the JSON.
* zstd:chunked: the TOC is zstd in a skippable frame. A second annotation has its offset and sizes.
  The first one is the digest of the compressed bytes.

A TOC comes from a registry. :func:`parse` accepts what an unpacked layer can be: each name once, no
``..``, chunks that cover their file exactly and have a digest. Other layers are pulled whole.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import io
import re
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, NamedTuple

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.image_documents import (
    ESTARGZ_DIGEST,
    ZSTD_CHUNKED_DIGEST,
    ZSTD_CHUNKED_POSITION,
    Descriptor,
)
from jaula.storage.compression import decompress_stream
from jaula.storage.tar.tar_reader import TarReader

ESTARGZ_TOC_NAME = b"stargz.index.json"
PREFETCH_LANDMARK = ".prefetch.landmark"
NO_PREFETCH_LANDMARK = ".no.prefetch.landmark"

ESTARGZ_FOOTER_SIZE = 51  # bytes
ZSTD_CHUNKED_FOOTER_SIZE = 64  # bytes
ZSTD_CHUNKED_MAGIC = b"GNUlInUx"

TOC_LIMIT = 64 << 20
"""Maximum size in bytes of a TOC, compressed or not."""

CHUNK_LIMIT = 64 << 20
"""Maximum size in bytes of a chunk. Writers use 4 MiB and less."""

ENTRIES_LIMIT = 1_000_000
_FRAME_HEADER = 8  # bytes, of a skippable frame of zstd
_NAME_LIMIT = 255  # bytes, of one component
_PATH_LIMIT = 4095  # bytes
_DEPTH_LIMIT = 128  # components
_XATTR_VALUE_LIMIT = 1 << 16  # bytes, as in the kernel
_FILE_SIZE_LIMIT = 1 << 43  # bytes
_REPLACEMENT = "\ufffd"  # Go writes it for bytes of a name that are not UTF-8

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_POSITION = re.compile(r"([0-9]{1,18}):([0-9]{1,18}):([0-9]{1,18}):1\Z")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII
)

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Id = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]
_Device = Annotated[int, msgspec.Meta(ge=0, le=2**20 - 1)]


class TocFormat(StrEnum):
    ESTARGZ = "estargz"
    ZSTD_CHUNKED = "zstd:chunked"


class EntryType(StrEnum):
    """The values of ``type`` in a TOC."""

    DIRECTORY = "dir"
    REGULAR = "reg"
    SYMLINK = "symlink"
    HARD_LINK = "hardlink"
    CHARACTER = "char"
    BLOCK = "block"
    FIFO = "fifo"
    CHUNK = "chunk"


class TocEntry(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An entry as it is in the JSON document of both formats.

    A ``chunk`` entry follows the ``reg`` entry whose content it continues.
    """

    name: str
    type: str
    size: _Count = 0
    modtime: str | None = None
    link_name: str = ""
    mode: _Count = 0
    uid: _Id = 0
    gid: _Id = 0
    user_name: str = ""
    group_name: str = ""
    offset: _Count = 0
    end_offset: _Count = 0
    inner_offset: _Count = 0
    dev_major: _Device = 0
    dev_minor: _Device = 0
    xattrs: dict[str, str] | None = None
    digest: str = ""
    chunk_offset: _Count = 0
    chunk_size: _Count = 0
    chunk_digest: str = ""
    chunk_type: str = ""


class TocDocument(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The JSON document of a TOC. ``tar_split_digest`` is zstd:chunked's."""

    version: int
    entries: list[TocEntry]
    tar_split_digest: str = ""


class Chunk(NamedTuple):
    """A part of a file. ``offset`` and ``length`` are bytes of the blob.

    The decompressed bytes of that range have the content from ``inner_offset`` on. A ``length`` of
    0 is a chunk of zeros, which has no bytes in the blob.
    """

    offset: int
    length: int
    inner_offset: int
    size: int
    digest: str


class File(NamedTuple):
    """An entry of a layer, checked. ``path`` is relative and clean, empty for the root.

    ``mode`` has the permission bits only, ``mtime`` is in nanoseconds. ``link`` is the target of a
    symbolic link, or the clean path of a hard link's.
    """

    path: bytes
    type: EntryType
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes]
    chunks: tuple[Chunk, ...]


class Toc(NamedTuple):
    """A verified and checked TOC. ``files`` are in the order of the tar.

    ``payload`` is the length of the part of the blob that has the contents. ``prefetch`` is the end
    of the prioritized part, 0 if the TOC has none.
    """

    format: TocFormat
    files: list[File]
    payload: int
    prefetch: int


class Position(NamedTuple):
    """The place of a TOC in a blob: bytes. ``size`` is the decompressed size, 0 if unknown."""

    offset: int
    length: int
    size: int


def format_of(layer: Descriptor) -> TocFormat | None:
    """Return the format of a layer's TOC, by its annotations; None if it has none. Pure."""
    annotations = layer.annotations
    if _DIGEST.match(annotations.get(ZSTD_CHUNKED_DIGEST, "")) and _POSITION.match(
        annotations.get(ZSTD_CHUNKED_POSITION, "")
    ):
        return TocFormat.ZSTD_CHUNKED
    if _DIGEST.match(annotations.get(ESTARGZ_DIGEST, "")):
        return TocFormat.ESTARGZ
    return None


def is_digest(text: str) -> bool:
    """Return whether a text is a digest ``sha256:HEX``. Pure."""
    return _DIGEST.match(text) is not None


def zstd_chunked_position(layer: Descriptor) -> Position:
    """Return the place of the TOC that the annotations of a layer state. Pure.

    :raises InvalidRequest: if it is not inside the blob, or too large.
    """
    match = _POSITION.match(layer.annotations.get(ZSTD_CHUNKED_POSITION, ""))
    if match is None:
        raise InvalidRequest(f"layer {layer.digest} does not state the position of its TOC")
    return _checked(Position(*map(int, match.groups())), layer)


def estargz_position(layer: Descriptor, footer: bytes) -> Position:
    """Return the place of the TOC that the footer of an eStargz blob states. Pure.

    ``footer`` is the last ESTARGZ_FOOTER_SIZE bytes.

    :raises InvalidRequest: if it is not a footer, or the place is not inside the blob.
    """
    # RFC 1952: the extra field "SG" of 22 bytes, in an empty member.
    match = re.match(
        rb"\x1f\x8b\x08\x04.{6}\x1a\x00SG\x16\x00([0-9a-f]{16})STARGZ\Z", footer[:38], re.DOTALL
    )
    if match is None or len(footer) != ESTARGZ_FOOTER_SIZE:
        raise InvalidRequest(f"layer {layer.digest} does not end with the footer of eStargz")
    offset = int(match[1], 16)
    return _checked(Position(offset, layer.size - ESTARGZ_FOOTER_SIZE - offset, 0), layer)


def _checked(position: Position, layer: Descriptor) -> Position:
    if (
        position.length <= 0
        or position.offset < _FRAME_HEADER
        or position.offset + position.length > layer.size
    ):
        raise InvalidRequest(f"the TOC of layer {layer.digest} is not inside the blob")
    if max(position.length, position.size) > TOC_LIMIT:
        raise InvalidRequest(
            f"the TOC of layer {layer.digest} has {max(position.length, position.size)} bytes, "
            f"the limit is {TOC_LIMIT}"
        )
    return position


def read(layer: Descriptor, position: Position, data: bytes) -> Toc:
    """Verify the bytes of a TOC against the annotations of its layer, and parse them. Pure.

    :raises InvalidRequest: if the digest differs, or the TOC is not valid.
    """
    format = format_of(layer)
    if format is TocFormat.ZSTD_CHUNKED:
        _verify(layer, data, layer.annotations[ZSTD_CHUNKED_DIGEST])
        stream, _ = decompress_stream(io.BytesIO(data))
        document = _limited(stream)
        if len(document) != position.size:
            raise InvalidRequest(
                f"the TOC of layer {layer.digest} has {len(document)} bytes, "
                f"its annotation states {position.size}"
            )
        payload = position.offset - _FRAME_HEADER
    elif format is TocFormat.ESTARGZ:
        document = _json_of(layer, data)
        _verify(layer, document, layer.annotations[ESTARGZ_DIGEST])
        payload = position.offset
    else:
        raise InvalidRequest(f"layer {layer.digest} has no TOC")
    return parse(document, format, payload)


def _verify(layer: Descriptor, data: bytes, expected: str) -> None:
    actual = "sha256:" + hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise InvalidRequest(
            f"the TOC of layer {layer.digest} has the digest {actual}, the manifest says {expected}"
        )


def _json_of(layer: Descriptor, data: bytes) -> bytes:
    stream, _ = decompress_stream(io.BytesIO(data))
    reader = TarReader(io.BytesIO(_limited(stream)))
    for entry in reader:
        if entry.name == ESTARGZ_TOC_NAME:
            return b"".join(bytes(part) for part in reader.data())
    raise InvalidRequest(f"the TOC of layer {layer.digest} is not a tar of stargz.index.json")


def _limited(stream: io.RawIOBase) -> bytes:
    data = bytearray()
    while part := stream.read(1 << 18):
        data += part
        if len(data) > TOC_LIMIT:
            raise InvalidRequest(f"the TOC of a layer has more than {TOC_LIMIT} bytes")
    return bytes(data)


# -- entries --------------------------------------------------------------------------------------


def parse(document: bytes, format: TocFormat, payload: int) -> Toc:
    """Return the checked entries of a TOC's JSON document. Pure.

    ``payload`` is the length of the part of the blob that may have contents.

    :raises InvalidRequest: if an entry is not valid.
    """
    try:
        toc = msgspec.json.decode(document, type=TocDocument)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the TOC of a layer is not valid: {error}") from None
    if toc.version != 1:
        raise InvalidRequest(f"the TOC of a layer has version {toc.version}, 1 is supported")
    if len(toc.entries) > ENTRIES_LIMIT:
        raise InvalidRequest(f"the TOC of a layer has more than {ENTRIES_LIMIT} entries")
    ends = _ends(toc.entries, payload)
    files: list[File] = []
    names: set[bytes] = set()
    prefetch = 0
    for entry, parts in _groups(toc.entries):
        file = _file(entry, parts, ends)
        if file.path in names:
            raise InvalidRequest(f"the TOC of a layer has {entry.name[:200]!r} twice")
        names.add(file.path)
        files.append(file)
        if entry.name == PREFETCH_LANDMARK:
            prefetch = entry.offset
    return Toc(format, files, payload, prefetch)


def _groups(entries: list[TocEntry]) -> list[tuple[TocEntry, list[TocEntry]]]:
    """Return each entry with the chunk entries that follow it."""
    groups: list[tuple[TocEntry, list[TocEntry]]] = []
    for entry in entries:
        if entry.type != EntryType.CHUNK:
            groups.append((entry, []))
        elif not groups or groups[-1][0].type != EntryType.REGULAR:
            raise InvalidRequest(f"chunk {entry.name[:200]!r} of a TOC does not follow a file")
        else:
            groups[-1][1].append(entry)
    return groups


def _ends(entries: list[TocEntry], payload: int) -> dict[int, int]:
    """Return the end of the compressed bytes that begin at each offset: the next one's begin."""
    offsets = sorted({e.offset for e in entries if _has_bytes(e)})
    if offsets and offsets[-1] >= payload:
        raise InvalidRequest(f"a TOC has the offset {offsets[-1]}, after the layer's contents")
    return dict(pairwise([*offsets, payload]))


def _has_bytes(entry: TocEntry) -> bool:
    if entry.type == EntryType.REGULAR:
        return entry.size > 0 and entry.chunk_type != "zeros"
    return entry.type == EntryType.CHUNK and entry.chunk_type != "zeros"


def _file(entry: TocEntry, parts: list[TocEntry], ends: dict[int, int]) -> File:
    path = clean_path(entry.name)
    try:
        type = EntryType(entry.type)
    except ValueError:
        raise InvalidRequest(
            f"entry {entry.name[:200]!r} of a TOC has the type {entry.type[:40]!r}"
        ) from None
    if not path and type is not EntryType.DIRECTORY:
        raise InvalidRequest(f"entry {entry.name[:200]!r} would replace the root directory")
    link, size = b"", 0
    chunks: tuple[Chunk, ...] = ()
    if type is EntryType.SYMLINK:
        link = _encode(entry.link_name)
        if not link or len(link) > _PATH_LIMIT:
            raise InvalidRequest(f"symbolic link {entry.name[:200]!r} of a TOC has no valid target")
    elif type is EntryType.HARD_LINK:
        link = clean_path(entry.link_name)
        if not link or link == path:
            raise InvalidRequest(f"hard link {entry.name[:200]!r} of a TOC has no valid target")
    elif type is EntryType.REGULAR:
        size = entry.size
        if size > _FILE_SIZE_LIMIT:
            raise InvalidRequest(f"file {entry.name[:200]!r} of a TOC is larger than 8 TiB")
        chunks = _chunks(entry, parts, ends)
    return File(
        path,
        type,
        entry.mode & 0o7777,
        entry.uid,
        entry.gid,
        parse_time(entry.modtime or ""),
        size,
        link,
        (entry.dev_major, entry.dev_minor),
        _xattrs(entry),
        chunks,
    )


def _chunks(entry: TocEntry, parts: list[TocEntry], ends: dict[int, int]) -> tuple[Chunk, ...]:
    """Return the chunks of a file, which cover it exactly."""
    if not entry.size:
        return ()
    chunks: list[Chunk] = []
    position = 0
    for part in (entry, *parts):
        size = part.chunk_size or entry.size - part.chunk_offset
        if part.chunk_offset != position or size <= 0 or position + size > entry.size:
            raise InvalidRequest(f"the chunks of {entry.name[:200]!r} do not cover the file")
        digest = part.chunk_digest or ("" if parts else entry.digest)
        if part.chunk_type == "zeros":
            chunks.append(Chunk(0, 0, 0, size, ""))
        elif part.chunk_type:
            raise InvalidRequest(
                f"a chunk of {entry.name[:200]!r} has the type {part.chunk_type[:40]!r}"
            )
        else:
            if not _DIGEST.match(digest):
                raise InvalidRequest(f"a chunk of {entry.name[:200]!r} has no sha256 digest")
            if max(size, part.inner_offset) > CHUNK_LIMIT:
                raise InvalidRequest(
                    f"a chunk of {entry.name[:200]!r} has {size} bytes, the limit is {CHUNK_LIMIT}"
                )
            length = ends[part.offset] - part.offset
            if length > 2 * CHUNK_LIMIT:
                raise InvalidRequest(f"a chunk of {entry.name[:200]!r} has {length} bytes")
            chunks.append(Chunk(part.offset, length, part.inner_offset, size, digest))
        position += size
    if position != entry.size:
        raise InvalidRequest(f"the chunks of {entry.name[:200]!r} do not cover the file")
    return tuple(chunks)


def _xattrs(entry: TocEntry) -> dict[str, bytes]:
    if not entry.xattrs:
        return _NO_XATTRS
    values = {}
    for name, text in entry.xattrs.items():
        try:
            value = binascii.a2b_base64(text, strict_mode=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest(
                f"attribute {name[:80]!r} of {entry.name[:200]!r} is not base64"
            ) from None
        if len(value) > _XATTR_VALUE_LIMIT or not 0 < len(_encode(name)) <= _NAME_LIMIT:
            raise InvalidRequest(f"attribute {name[:80]!r} of {entry.name[:200]!r} is too long")
        values[name] = value
    return values


def _encode(text: str) -> bytes:
    """Return a name as bytes.

    :raises InvalidRequest: if the writer of the TOC could not represent the name.
    """
    if "\0" in text or _REPLACEMENT in text:
        raise InvalidRequest(f"the name {text[:200]!r} of a TOC is not valid")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"the name {text[:200]!r} of a TOC is not valid") from None


def clean_path(name: str) -> bytes:
    """Return a name relative to the layer's root, without empty and ``.`` components. Pure.

    :raises InvalidRequest: if a component is ``..`` or too long.
    """
    encoded = _encode(name)
    path = encoded.rstrip(b"/")
    if (
        0 < len(path) <= _NAME_LIMIT
        and path[:1] not in b"./"
        and b"/." not in path
        and b"//" not in path
        and path.count(b"/") < _DEPTH_LIMIT
    ):
        return path  # most names
    components = [part for part in encoded.split(b"/") if part not in (b"", b".")]
    path = b"/".join(components)
    if b".." in components:
        raise InvalidRequest(f"entry {name[:200]!r} of a TOC leaves the layer's directory")
    if (
        len(path) > _PATH_LIMIT
        or len(components) > _DEPTH_LIMIT
        or any(len(part) > _NAME_LIMIT for part in components)
    ):
        raise InvalidRequest(f"the name {name[:200]!r} of a TOC is too long")
    return path


@functools.lru_cache(maxsize=4096)
def parse_time(text: str) -> int:
    """Return a time of RFC 3339 in nanoseconds since the epoch, 0 for an empty text. Pure.

    :raises InvalidRequest: if it is not a time.
    """
    if not text:
        return 0
    match = _TIME.match(text)
    try:
        if match is None:
            raise ValueError
        base, fraction, zone = match.groups()
        moment = datetime.fromisoformat(base.upper() + ("+00:00" if zone in "Zz" else zone))
    except ValueError:
        raise InvalidRequest(f"{text[:80]!r} in a TOC is not a time") from None
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _SECOND
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


_NO_XATTRS: dict[str, bytes] = {}
_SECOND = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
