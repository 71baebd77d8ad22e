"""A file of BoltDB is read, and a damaged one is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.migrate_from.bolt import BoltFile

SIZE = 4096  # bytes of a page
BRANCH, LEAF, META = 1, 2, 4


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


def meta(page: int, root: int, transaction: int) -> bytes:
    body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, SIZE, 0, root, 0, 2, 9, transaction)
    data = struct.pack("<QHHI", page, META, 0, 0) + body + struct.pack("<Q", fnv(body))
    return data.ljust(SIZE, b"\0")


def leaf(page: int, items: list[tuple[int, bytes, bytes]]) -> bytes:
    head, table, data = struct.pack("<QHHI", page, LEAF, len(items), 0), b"", b""
    for index, (flags, key, value) in enumerate(items):
        position = (len(items) - index) * 16 + len(data)
        table += struct.pack("<IIII", flags, position, len(key), len(value))
        data += key + value
    return head + table + data


def branch(page: int, children: list[int]) -> bytes:
    head = struct.pack("<QHHI", page, BRANCH, len(children), 0)
    return head + b"".join(struct.pack("<IIQ", 0, 0, child) for child in children)


def file(*pages: bytes) -> bytes:
    return b"".join(page.ljust(SIZE, b"\0") for page in pages)


BUCKET = struct.pack("<QQ", 5, 0)
WHOLE = file(
    meta(0, 4, 7),
    meta(1, 3, 6),
    leaf(2, []),
    leaf(3, [(1, b"old", BUCKET)]),
    leaf(4, [(1, b"big", BUCKET), (1, b"small", bytes(16) + leaf(0, [(0, b"k", b"inline")]))]),
    branch(5, [6, 7]),
    leaf(6, [(0, b"a", b"1")]),
    leaf(7, [(0, b"b", b"2"), (1, b"nested", struct.pack("<QQ", 8, 0))]),
    leaf(8, [(0, b"deep", b"3"), (1, b"inline", bytes(16) + leaf(0, [(0, b"k", b"v")]))]),
)


def test_a_bucket_of_several_pages_is_read() -> None:
    assert list(BoltFile(WHOLE).items(b"big")) == [(b"a", b"1"), (b"b", b"2")]


def test_a_bucket_within_its_parent_is_read() -> None:
    assert list(BoltFile(WHOLE).items(b"small")) == [(b"k", b"inline")]


def test_buckets_in_buckets_are_read() -> None:
    file = BoltFile(WHOLE)
    assert list(file.buckets()) == [b"big", b"small"]
    assert list(file.buckets(b"big")) == [b"nested"]
    assert list(file.items(b"big", b"nested")) == [(b"deep", b"3")]
    assert list(file.items(b"big", b"nested", b"inline")) == [(b"k", b"v")]
    assert list(file.items(b"big", b"a")) == []  # a value
    assert list(file.buckets(b"none", b"nested")) == []


def test_a_bucket_that_contains_itself_ends() -> None:
    cycle = file(meta(0, 2, 1), meta(1, 2, 0), leaf(2, [(1, b"x", struct.pack("<QQ", 2, 0))]))
    assert list(BoltFile(cycle).buckets(*[b"x"] * 50)) == [b"x"]


def test_an_absent_bucket_has_no_items() -> None:
    assert list(BoltFile(WHOLE).items(b"none")) == []


def test_the_newest_valid_meta_page_counts() -> None:
    assert list(BoltFile(WHOLE).items(b"old")) == []
    torn = WHOLE[:40] + b"\xff" + WHOLE[41:]  # the checksum of page 0 is wrong
    assert list(BoltFile(torn).items(b"old")) == [(b"a", b"1"), (b"b", b"2")]


def test_pages_that_form_a_cycle_are_refused() -> None:
    cycle = file(meta(0, 2, 1), meta(1, 2, 0), branch(2, [2, 2]))
    with pytest.raises(InvalidRequest, match="cycle"):
        list(BoltFile(cycle).items(b"x"))


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", bytes(SIZE * 4)])
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a file of BoltDB"):
        BoltFile(data)


@given(st.integers(SIZE * 2, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_gives_items_or_one_error(offset: int, noise: bytes) -> None:
    damaged = WHOLE[:offset] + noise + WHOLE[offset + len(noise) :]
    for data in (damaged, WHOLE[:offset]):
        try:
            items = list(BoltFile(data).items(b"big"))
        except InvalidRequest:
            continue
        assert all(isinstance(key, bytes) for key, _ in items)
