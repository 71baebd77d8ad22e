"""The entries of a table of contents (TOC), made from those of a tar.

Sources: containerd/stargz-snapshotter ``docs/estargz.md`` and containers/storage
``pkg/chunked/internal/minimal/compression.go``. Both formats have the same members, with different
roundings of times and different rules for digests.
"""

from __future__ import annotations

import base64
import posixpath
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.registry.toc import TOC_LIMIT
from jaula.storage.tar.raw_reader import RawTarReader
from jaula.storage.tar.tar_entry import REGULAR, TarEntry, quote_name
from jaula.storage.tar.tar_reader import parse_number

Document = dict[str, Any]

_TYPES = ("reg", "hardlink", "symlink", "char", "block", "dir", "fifo")
_EPOCH = datetime(1970, 1, 1)
_CONTIGUOUS = ord("7")
_GNU_MAGIC = b"ustar  \0"


class NotIndexable(InvalidRequest):
    """A layer is a valid tar that a TOC cannot describe."""


class Names:
    """The names of a layer's entries so far."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def add(self, entry: TarEntry) -> tuple[str, str]:
        """Return the name and the link target of an entry as text.

        :raises NotIndexable: if one is not UTF-8, or an entry of the name exists.
        """
        try:
            name, link = entry.name.decode(), entry.link.decode()
        except UnicodeDecodeError:
            raise NotIndexable(f"the name {quote_name(entry.name)} is not UTF-8") from None
        clean = posixpath.normpath("/" + name)
        if clean in self._seen:
            raise NotIndexable(f"{quote_name(entry.name)} exists twice")
        self._seen.add(clean)
        return name, link


def describe(reader: RawTarReader, entry: TarEntry, names: Names) -> Document:
    """Return the metadata of an entry for a TOC. Values that are 0 or empty are absent.

    :raises NotIndexable: if a reader of the TOC would see another entry than one of the tar.
    """
    name, link = names.add(entry)
    header = reader.header
    if header[156] == _CONTIGUOUS or b"g" in reader.extended_types:
        raise NotIndexable(
            f"{quote_name(entry.name)} has a type or header that a TOC does not have"
        )
    if header[257:265] == _GNU_MAGIC and (header[345] or header[357]):
        raise NotIndexable(f"{quote_name(entry.name)} has GNU tar's times of access and change")
    size = entry.size if entry.type == REGULAR else 0
    if entry.type != REGULAR and (parse_number(header[124:136]) or b"size" in reader.records):
        raise NotIndexable(f"{quote_name(entry.name)} has a size, but is not a regular file")
    members = {
        "linkName": link,
        "mode": parse_number(header[100:108]),
        "size": size,
        "uid": entry.uid,
        "gid": entry.gid,
        "devMajor": entry.major,
        "devMinor": entry.minor,
        "xattrs": {key: base64.b64encode(value).decode() for key, value in entry.xattrs.items()},
    }
    document: Document = {"type": _TYPES[entry.type - REGULAR], "name": name}
    document.update((key, value) for key, value in members.items() if value)
    return document


def time_text(nanoseconds: int, name: bytes, *, fraction: bool) -> str:
    """Return a time as RFC 3339 in UTC, with up to nine digits of a fraction or rounded.

    :raises NotIndexable: if the year does not have four digits.
    """
    if not fraction:
        nanoseconds = (nanoseconds + 500_000_000) // 1_000_000_000 * 1_000_000_000
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        raise NotIndexable(f"the time of {quote_name(name)} is out of range") from None
    return text + (f".{rest:09}".rstrip("0") if rest else "") + "Z"


class Record:
    """The documents of one entry: its own and one for each further chunk.

    ``unplaced`` is the number of its parts whose position is not known yet.
    """

    __slots__ = ("documents", "unplaced")

    def __init__(self, document: Document) -> None:
        self.documents = [document]
        self.unplaced = 0


class EntryList:
    """Writes the documents of a TOC to ``sink`` in their order, each as soon as it is complete."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._pending: deque[Record] = deque()
        self._separator = b""
        self._size = 0

    def add(self, record: Record) -> None:
        """Add an entry, whose documents may change until it has no unplaced part.

        :raises NotIndexable: if the list is too large.
        """
        while self._pending and not self._pending[0].unplaced:
            self._write(self._pending.popleft())
        self._pending.append(record)

    def finish(self) -> None:
        """Write the last entries. All parts are placed."""
        while self._pending:
            self._write(self._pending.popleft())

    def _write(self, record: Record) -> None:
        for document in record.documents:
            data = self._separator + msgspec.json.encode(document)
            self._separator = b","
            self._size += len(data)
            if self._size > TOC_LIMIT:
                raise NotIndexable(f"its TOC would have more than {TOC_LIMIT} bytes")
            self._sink(data)


def placement(
    record: Record, document: Document, *, with_end: bool = False
) -> Callable[[int, int], None]:
    """Return a function that notes the position of a part of an entry in the output."""

    def placed(start: int, end: int) -> None:
        document["offset"] = start
        if with_end:
            record.documents[0]["endOffset"] = end
        record.unplaced -= 1

    return placed


def file_chunks(reader: RawTarReader, size: int) -> Iterator[bytes]:
    """Yield the data of the present entry in pieces of ``size`` bytes; the last may be shorter."""
    gathered = bytearray()
    for view in reader.data():
        position = 0
        while position < len(view):
            step = view[position : position + size - len(gathered)]
            position += len(step)
            if len(step) == size:
                yield bytes(step)
                continue
            gathered += step
            if len(gathered) == size:
                yield bytes(gathered)
                gathered.clear()
    if gathered:
        yield bytes(gathered)
