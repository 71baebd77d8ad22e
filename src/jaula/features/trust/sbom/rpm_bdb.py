"""rpm's oldest database (``Packages``): a hash file of Berkeley DB. Pure, read-only.

Sources: Berkeley DB's ``src/dbinc/db_page.h`` and ``hash.h``; rpm's ``lib/backend/bdb_ro.c``. The
first page states the number and the pages of the buckets. A bucket is a chain of pages with pairs
of key and value. A value that does not fit is in a chain of overflow pages.

Facts about this file:

* Numbers have the byte order of the machine that wrote the file.
* The items of a page are stored from its end to its start, so an item ends where the one before it
  starts.
* A bucket that never contained anything may be a page of zeros.
* Free pages, and pages reserved for future buckets, still contain old data. Only what a bucket
  links to is a package.
* No page is part of two chains. Each page is therefore read only once, which ends every loop. No
  more buckets are read than there are pages.
* Under the key 0 rpm stores the last number that it assigned.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from jaula.errors import InvalidRequest

_MAGIC = 0x00061561
_VERSIONS = range(8, 11)
_PAGE_SIZES = tuple(1 << power for power in range(9, 17))
_HEAD = 26  # bytes of a page before its table of items
_HASH = (2, 13)  # page types of buckets: unsorted and sorted
_OVERFLOW = 7  # page type
_KEYDATA, _OFFPAGE = 1, 3  # types of items
_MAX_HEADER = 64 << 20  # bytes of a header
_MAX_PAIRS = 1_000_000  # pairs


class _Page(msgspec.Struct, frozen=True):
    content: memoryview
    next: int
    items: int
    filled: int  # bytes used in an overflow page


def blobs(data: bytes, path: str) -> Iterator[bytes]:
    """Yield the packages' headers. ``path`` names the file in errors.

    :raises InvalidRequest: if the file is damaged.
    """
    try:
        file = _File(data, path)
        for number, (key, value) in enumerate(file.pairs()):
            if number >= _MAX_PAIRS:
                raise InvalidRequest(f"{path} has more than {_MAX_PAIRS} entries")
            if len(key) != 5 or key[0] != _KEYDATA:
                raise InvalidRequest(f"{path} is damaged: a key is not a package number")
            if any(key[1:]):
                yield file.value(value)
    except struct.error as error:
        raise InvalidRequest(f"{path} is damaged: {error}") from None


class _File:
    def __init__(self, data: bytes, path: str) -> None:
        self._data = memoryview(data)
        self._path = path
        self._order = ">" if struct.unpack_from(">I", data, 12)[0] == _MAGIC else "<"
        magic, version, size, cipher, _, flags, _, _, last = self._numbers("IIIBBBBII", data, 12)
        if magic != _MAGIC:
            raise InvalidRequest(f"{path} is not a package database")
        if version not in _VERSIONS:
            raise InvalidRequest(f"{path} has format version {version}, which rpm never wrote")
        if cipher or flags:
            raise InvalidRequest(
                f"{path} is encrypted, has checksums or is partitioned, which a package database "
                "never is"
            )
        if size not in _PAGE_SIZES:
            raise self._damaged(f"it has pages of {size} bytes")
        self._size = size
        self._unread = bytearray(b"\1") * min(last + 1, len(data) // size)
        self._last_bucket = self._numbers("I", data, 72)[0]
        self._spares = self._numbers("32I", data, 96)

    def pairs(self) -> Iterator[tuple[memoryview, memoryview]]:
        """Yield keys and values as items, page by page."""
        for bucket in range(self._last_bucket + 1):
            number = bucket + self._spares[bucket.bit_length()]
            page = self._page(number, _HASH, may_be_blank=True)
            while True:
                items = self._items(page, number)
                yield from zip(items[::2], items[1::2], strict=True)
                if not page.next:
                    break
                number = page.next
                page = self._page(number, _HASH)

    def value(self, item: memoryview) -> bytes:
        """Return the content of an item, or the content of the overflow pages that it refers to."""
        if item[0] == _KEYDATA:
            return bytes(item[1:])
        if item[0] != _OFFPAGE or len(item) != 12:
            raise self._damaged(f"an item has type {item[0]} and {len(item)} bytes")
        number, length = self._numbers("II", item, 4)
        if length > _MAX_HEADER:
            raise InvalidRequest(f"{self._path} has a header of more than {_MAX_HEADER} bytes")
        chunks: list[memoryview] = []
        while length > 0:
            page = self._page(number, (_OVERFLOW,))
            chunks.append(page.content[_HEAD : _HEAD + page.filled])
            if len(chunks[-1]) != page.filled:
                raise self._damaged(f"page {number} states more data than fits")
            length -= page.filled
            number = page.next
        if length or number:
            raise self._damaged("the length of a header is wrong")
        return b"".join(chunks)

    def _page(self, number: int, types: tuple[int, ...], *, may_be_blank: bool = False) -> _Page:
        if not 0 < number < len(self._unread):
            raise self._damaged(f"page {number} does not exist")
        if not self._unread[number]:
            raise self._damaged(f"page {number} is used twice")
        self._unread[number] = 0
        content = self._data[number * self._size : (number + 1) * self._size]
        stated, _, following, items, filled, _, type = self._numbers("IIIHHBB", content, 8)
        blank = may_be_blank and not stated and not content.tobytes().strip(b"\0")
        if not blank and (stated != number or type not in types):
            raise self._damaged(f"page {number} has another number or type")
        return _Page(content, following, items, filled)

    def _items(self, page: _Page, number: int) -> list[memoryview]:
        first = _HEAD + 2 * page.items
        if page.items % 2 or first > self._size:
            raise self._damaged(f"page {number} has {page.items} items")
        starts = self._numbers(f"{page.items}H", page.content, _HEAD)
        ranges = [*zip(starts, (self._size, *starts), strict=False)]
        if any(not first <= start < end for start, end in ranges):
            raise self._damaged(f"page {number} has items at invalid offsets")
        return [page.content[start:end] for start, end in ranges]

    def _numbers(self, layout: str, data: bytes | memoryview, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + layout, data, offset)

    def _damaged(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"{self._path} is damaged: {why}")
