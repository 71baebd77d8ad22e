"""Read a BoltDB file: docker has networks and labels of volumes in it, podman its state.

Source: go.etcd.io/bbolt, ``page.go``, ``meta.go`` and ``node.go``. The file is untrusted: each
offset is checked, and the number of visited pages has a limit. A file that its owner changes
meanwhile is read in the state of the newest complete transaction, whose pages the next one does not
overwrite.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaula.errors import InvalidRequest

_MAGIC, _VERSION = 0xED0CDAED, 2
_PAGE = struct.Struct("<QHHI")  # id, flags, count, overflow
_META = struct.Struct("<IIIIQQQQQQ")
_LEAF = struct.Struct("<IIII")  # flags, position, key size, value size
_BRANCH = struct.Struct("<IIQ")  # position, key size, page
_BUCKET = struct.Struct("<QQ")  # root page, sequence
_IS_BRANCH, _IS_LEAF, _IS_META = 0x01, 0x02, 0x04
_BUCKET_FLAG = 0x01

_Element = tuple[int, bytes, bytes]  # flags, key and value


class _Meta(NamedTuple):
    page_size: int
    root: int
    transaction: int


class BoltFile:
    """The content of one file."""

    def __init__(self, data: bytes) -> None:
        """Read the newest of both meta pages.

        :raises InvalidRequest: when ``data`` is not such a file.
        """
        self._data = data
        metas = [_meta(data, 0)]
        metas += [_meta(data, size) for size in (4096, 8192, 16384, 65536)]
        valid = [meta for meta in metas if meta is not None]
        if not valid:
            raise InvalidRequest("not a file of BoltDB")
        newest = max(valid, key=lambda meta: meta.transaction)
        self._page_size, self._root = newest.page_size, newest.root

    def items(self, *path: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys and values of a bucket, without buckets in it; nothing if it is absent.

        ``path`` are the names of the bucket and of those around it, the outermost first.

        :raises InvalidRequest: when the file is damaged.
        """
        yield from ((k, v) for flags, k, v in self._entries(path) if not flags & _BUCKET_FLAG)

    def buckets(self, *path: bytes) -> Iterator[bytes]:
        """Yield the names of the buckets in a bucket; nothing if it is absent.

        :raises InvalidRequest: when the file is damaged.
        """
        yield from (k for flags, k, _ in self._entries(path) if flags & _BUCKET_FLAG)

    def _entries(self, path: Sequence[bytes]) -> Iterator[_Element]:
        try:
            entries = self._leaves(self._root * self._page_size)
            for name in path:
                found = (v for flags, k, v in entries if flags & _BUCKET_FLAG and k == name)
                value = next(found, None)
                if value is None:
                    return
                root, _ = _BUCKET.unpack_from(value)
                if root:
                    entries = self._leaves(root * self._page_size)
                else:  # the bucket is so small that its page is in the value
                    entries = _page_leaves(value, _BUCKET.size)
            yield from entries
        except (struct.error, OverflowError):
            raise InvalidRequest("the file of BoltDB is damaged") from None

    def _leaves(self, offset: int) -> Iterator[_Element]:
        pending, visits = [offset], 0
        while pending:
            offset = pending.pop()
            visits += 1
            if visits > len(self._data) // self._page_size + 1:
                raise InvalidRequest("the file of BoltDB is damaged: its pages form a cycle")
            _, flags, count, _ = _PAGE.unpack_from(self._data, offset)
            if flags & _IS_LEAF:
                yield from _page_leaves(self._data, offset)
            elif flags & _IS_BRANCH:
                start = offset + _PAGE.size
                pages = [
                    _BRANCH.unpack_from(self._data, start + index * _BRANCH.size)[2]
                    for index in range(count)
                ]
                pending += [page * self._page_size for page in reversed(pages)]
            else:
                raise InvalidRequest("the file of BoltDB is damaged: it has a page of no kind")


def _page_leaves(data: bytes, offset: int) -> Iterator[_Element]:
    """Yield flags, key and value of each element of a leaf page."""
    _, _, count, _ = _PAGE.unpack_from(data, offset)
    for index in range(count):
        element = offset + _PAGE.size + index * _LEAF.size
        flags, position, key_size, value_size = _LEAF.unpack_from(data, element)
        start = element + position
        end = start + key_size + value_size
        if end > len(data):
            raise InvalidRequest("the file of BoltDB is damaged: an element exceeds the file")
        yield flags, data[start : start + key_size], data[start + key_size : end]


def _meta(data: bytes, offset: int) -> _Meta | None:
    """Return the meta page at an offset, if there is a valid one."""
    start = offset + _PAGE.size
    if len(data) < start + _META.size:
        return None
    fields = _META.unpack_from(data, start)
    magic, version, page_size, _, root, _, _, _, transaction, checksum = fields
    if magic != _MAGIC or version != _VERSION or not _PAGE.unpack_from(data, offset)[1] & _IS_META:
        return None
    if not 1024 <= page_size <= 1 << 20 or checksum != _fnv(data[start : start + _META.size - 8]):
        return None
    return _Meta(page_size, root, transaction)


def _fnv(data: bytes) -> int:
    """Return the FNV-1a hash of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value
