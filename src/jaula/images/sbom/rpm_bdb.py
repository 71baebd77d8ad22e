"""rpm's oldest database (``Packages``): a hash file of Berkeley DB. Pure, and only read.

Sources: Berkeley DB's ``src/dbinc/db_page.h`` and ``hash.h``; rpm's ``lib/backend/bdb_ro.c``. The
first page says how many buckets there are and where they lie. A bucket is a chain of pages with
pairs of key and value, and a value that is too long for them is a chain of overflow pages.

Facts about this file:

* Numbers have the byte order of the machine that wrote it.
* Items of a page lie from its end towards its front, so the next one before says where one ends.
* A bucket that has never had anything in it may be a page of zeros.
* Pages that are free, or held ready for buckets to come, still have what was in them: only what a
  bucket leads to is a package.
* No page is part of two chains. Each is therefore given out once, which ends every loop, and no
  more buckets are gone through than there are pages.
* Under the key 0 rpm keeps the number that it gave last.
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
_HASH = (2, 13)  # types of pages: a bucket's, unsorted and sorted
_OVERFLOW = 7
_HERE, _ELSEWHERE = 1, 3  # types of items
_LARGEST = 64 << 20  # bytes of a header
_MOST = 1_000_000  # pairs


class _Page(msgspec.Struct, frozen=True):
    content: memoryview
    next: int
    items: int
    filled: int  # bytes, of an overflow page


def blobs(data: bytes, place: str) -> Iterator[bytes]:
    """The packages' headers. Raises :class:`InvalidRequest` for a file that is damaged."""
    try:
        file = _File(data, place)
        for number, (key, value) in enumerate(file.pairs()):
            if number >= _MOST:
                raise InvalidRequest(f"{place} has more than {_MOST} entries")
            if len(key) != 5 or key[0] != _HERE:
                raise InvalidRequest(f"{place} is damaged: a key is no package's number")
            if any(key[1:]):
                yield file.value(value)
    except struct.error as error:
        raise InvalidRequest(f"{place} is damaged: {error}") from None


class _File:
    def __init__(self, data: bytes, place: str) -> None:
        self._data = memoryview(data)
        self._place = place
        self._order = ">" if struct.unpack_from(">I", data, 12)[0] == _MAGIC else "<"
        magic, version, size, cipher, _, flags, _, _, last = self._numbers("IIIBBBBII", data, 12)
        if magic != _MAGIC:
            raise InvalidRequest(f"{place} is no database of packages")
        if version not in _VERSIONS:
            raise InvalidRequest(
                f"{place} has version {version} of its format, which rpm never wrote"
            )
        if cipher or flags:
            raise InvalidRequest(
                f"{place} is encrypted, has checksums or is one of several parts, as no database "
                "of packages is"
            )
        if size not in _PAGE_SIZES:
            raise self._damaged(f"it has pages of {size} bytes")
        self._size = size
        self._fresh = bytearray(b"\1") * min(last + 1, len(data) // size)
        self._last_bucket = self._numbers("I", data, 72)[0]
        self._spares = self._numbers("32I", data, 96)

    def pairs(self) -> Iterator[tuple[memoryview, memoryview]]:
        """Keys and values, as items; those of a page once it was looked at as a whole."""
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
        """What an item is or leads to."""
        if item[0] == _HERE:
            return bytes(item[1:])
        if item[0] != _ELSEWHERE or len(item) != 12:
            raise self._damaged(f"an item has type {item[0]} and {len(item)} bytes")
        number, length = self._numbers("II", item, 4)
        if length > _LARGEST:
            raise InvalidRequest(f"{self._place} has a header of more than {_LARGEST} bytes")
        pieces: list[memoryview] = []
        while length > 0:
            page = self._page(number, (_OVERFLOW,))
            pieces.append(page.content[_HEAD : _HEAD + page.filled])
            if len(pieces[-1]) != page.filled:
                raise self._damaged(f"page {number} holds more than it can")
            length -= page.filled
            number = page.next
        if length or number:
            raise self._damaged("a header is longer than it is")
        return b"".join(pieces)

    def _page(self, number: int, types: tuple[int, ...], *, may_be_blank: bool = False) -> _Page:
        if not 0 < number < len(self._fresh):
            raise self._damaged(f"page {number} is not there")
        if not self._fresh[number]:
            raise self._damaged(f"page {number} is in two places")
        self._fresh[number] = 0
        content = self._data[number * self._size : (number + 1) * self._size]
        own, _, following, items, filled, _, type = self._numbers("IIIHHBB", content, 8)
        blank = may_be_blank and not own and not content.tobytes().strip(b"\0")
        if not blank and (own != number or type not in types):
            raise self._damaged(f"page {number} is another one")
        return _Page(content, following, items, filled)

    def _items(self, page: _Page, number: int) -> list[memoryview]:
        first = _HEAD + 2 * page.items
        if page.items % 2 or first > self._size:
            raise self._damaged(f"page {number} has {page.items} items")
        starts = self._numbers(f"{page.items}H", page.content, _HEAD)
        places = [*zip(starts, (self._size, *starts), strict=False)]
        if any(not first <= start < end for start, end in places):
            raise self._damaged(f"page {number} has items that are not where they should be")
        return [page.content[start:end] for start, end in places]

    def _numbers(self, layout: str, data: bytes | memoryview, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + layout, data, offset)

    def _damaged(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"{self._place} is damaged: {why}")
