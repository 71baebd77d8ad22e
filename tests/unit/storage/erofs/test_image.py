"""Entries that the format cannot store are refused, and the output depends on the entries only."""

from __future__ import annotations

import io
import stat
import struct

import pytest

from jaula.storage.erofs import erofs_image
from jaula.storage.erofs.erofs_image import (
    BLOCK_SIZE,
    HOLE,
    MAX_BLOB_SIZE,
    MAX_DEVICES,
    Entry,
    write,
)

DIRECTORY = stat.S_IFDIR | 0o755
FILE = stat.S_IFREG | 0o644
LINK = stat.S_IFLNK | 0o777
ROOT = Entry(b"", DIRECTORY)


def encode(*entries: Entry, blob_size: int = 0) -> bytes:
    file = io.BytesIO()
    size = write(entries, file, blob_size=blob_size)
    assert size == len(file.getvalue())
    return file.getvalue()


def test_the_superblock_has_the_checksum_of_its_block() -> None:
    data = encode(ROOT)
    magic, checksum = struct.unpack_from("<II", data, 1024)
    assert magic == 0xE0F5E1E2
    block = bytearray(data[1024:BLOCK_SIZE])
    block[4:8] = bytes(4)
    assert erofs_image._crc32c(bytes(block)) == checksum


def test_crc32c_has_the_check_value_of_the_polynomial() -> None:
    assert erofs_image._crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_the_order_of_entries_does_not_change_the_image() -> None:
    entries = [ROOT, Entry(b"a", DIRECTORY), Entry(b"a/b", FILE), Entry(b"c", LINK, link=b"a")]
    assert encode(*entries) == encode(*reversed(entries))


def test_two_trees_have_two_uuids() -> None:
    first, second = encode(ROOT, Entry(b"a", FILE)), encode(ROOT, Entry(b"b", FILE))
    uuid = slice(1024 + 48, 1024 + 64)
    assert first[uuid] != second[uuid]
    assert first[uuid] == encode(ROOT, Entry(b"a", FILE))[uuid] != bytes(16)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([], "no root directory"),
        ([Entry(b"", FILE)], "no root directory"),
        ([ROOT, Entry(b"a", FILE), Entry(b"a", FILE)], "two entries"),
        ([ROOT, Entry(b"a", FILE), Entry(b"a", 0, hard_link=b"a")], "two entries"),
        ([ROOT, Entry(b"a/b", FILE)], "directory of b'a/b' is not in the tree"),
        ([ROOT, Entry(b"a", FILE), Entry(b"a/b", FILE)], "directory of b'a/b' is not in the tree"),
        ([ROOT, Entry(b"a/", FILE), Entry(b"a", DIRECTORY)], "valid name"),
        ([ROOT, Entry(b"/a", FILE)], "valid name"),
        ([ROOT, Entry(b"..", DIRECTORY)], "valid name"),
        ([ROOT, Entry(b".", FILE)], "valid name"),
        ([ROOT, Entry(b"a\0b", FILE)], "valid name"),
        ([ROOT, Entry(b"a" * 256, FILE)], "valid name"),
        ([ROOT, Entry(b"a", 0o644)], "invalid mode"),
        ([ROOT, Entry(b"a", FILE | 1 << 16)], "invalid mode"),
        ([ROOT, Entry(b"a", FILE, uid=-1)], "invalid owner"),
        ([ROOT, Entry(b"a", FILE, gid=2**32)], "invalid owner"),
        ([ROOT, Entry(b"a", FILE, mtime=2**63 * 10**9)], "more than 64 bits"),
        ([ROOT, Entry(b"a", FILE, size=1)], "0 chunks instead of 1"),
        ([ROOT, Entry(b"a", FILE, chunks=(0,))], "1 chunks instead of 0"),
        ([ROOT, Entry(b"a", FILE, size=-1)], "exceeds the format"),
        ([ROOT, Entry(b"a", FILE, size=2**60, chunks=(HOLE,))], "exceeds the format"),
        ([ROOT, Entry(b"a", FILE, size=9000, chunks=(0,), chunk_size=4096)], "1 chunks instead"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(0,), chunk_size=12288)], "invalid chunk size"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(0,), chunk_size=2048)], "invalid chunk size"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(0,), chunk_size=2**44)], "invalid chunk size"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(512,))], "chunk at 512"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(-4096,))], "chunk at -4096"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(MAX_BLOB_SIZE,))], "chunk at"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(0,), devices=(2,))], "chunk in device 2"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(0,), devices=(0,))], "chunk in device 0"),
        ([ROOT, Entry(b"a", FILE, size=1, chunks=(0,), devices=(1, 1))], "1 chunks and 2 devices"),
        ([ROOT, Entry(b"a", LINK)], "invalid target"),
        ([ROOT, Entry(b"a", LINK, link=b"x" * 4096)], "invalid target"),
        ([ROOT, Entry(b"a", LINK, link=b"x\0")], "invalid target"),
        ([ROOT, Entry(b"a", DIRECTORY, size=1)], "not a regular file"),
        ([ROOT, Entry(b"a", 0, hard_link=b"b")], "hard link to b'b'"),
        ([ROOT, Entry(b"a", 0, hard_link=b"")], "hard link to b''"),
        ([ROOT, Entry(b"a", FILE, xattrs={"system.nfs4_acl": b""})], "cannot store"),
        ([ROOT, Entry(b"a", FILE, xattrs={"user.": b""})], "cannot store"),
        ([ROOT, Entry(b"a", FILE, xattrs={"user." + "a" * 256: b""})], "too long"),
        ([ROOT, Entry(b"a", FILE, xattrs={"user.a": bytes(65536)})], "too long"),
        (
            [ROOT, Entry(b"a", FILE, xattrs={f"user.{n}": bytes(60000) for n in range(5)})],
            "256 KiB",
        ),
    ],
)
def test_what_the_format_cannot_store_is_refused(entries: list[Entry], problem: str) -> None:
    file = io.BytesIO()
    with pytest.raises(ValueError, match=problem):
        write(entries, file)
    assert not file.getvalue()


def test_a_chunk_beyond_the_end_of_the_blob_is_refused() -> None:
    entry = Entry(b"a", FILE, size=5000, chunks=(4096,))
    encode(ROOT, entry, blob_size=9096)
    with pytest.raises(ValueError, match="chunk at 4096"):
        encode(ROOT, entry, blob_size=8192)


def test_a_tag_or_blob_that_the_device_table_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        write([ROOT], io.BytesIO(), blob_tag=bytes(65))
    with pytest.raises(ValueError, match="exceeds"):
        write([ROOT], io.BytesIO(), blob_size=MAX_BLOB_SIZE + 1)


def test_a_chunk_beyond_the_end_of_a_shared_blob_is_refused() -> None:
    entry = Entry(b"a", FILE, size=5000, chunks=(4096,), devices=(2,))
    write([ROOT, entry], io.BytesIO(), blob_size=4096, shared_sizes=(12288,))
    with pytest.raises(ValueError, match="chunk at 4096"):
        write([ROOT, entry], io.BytesIO(), blob_size=12288, shared_sizes=(8192,))


def test_an_image_has_a_limited_number_of_blobs() -> None:
    write([ROOT], io.BytesIO(), shared_sizes=(4096,) * (MAX_DEVICES - 1))
    with pytest.raises(ValueError, match="more than 16 blobs"):
        write([ROOT], io.BytesIO(), shared_sizes=(4096,) * MAX_DEVICES)
