"""Compressed log files: other programs read them, and damaged ones are read up to the damage."""

from __future__ import annotations

import gzip
import os
import tempfile
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.logs.gzip_file import compress, decompress, source_inode

LINES = b"".join(b'{"log":"line %d\\n"}\n' % (n * 7919 % 1009) for n in range(2000))


@contextmanager
def holding(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        yield file.fileno()


def packed(data: bytes) -> tuple[bytes, int]:
    """Return ``data`` compressed, and the inode of the plain file."""
    with holding(data) as source, tempfile.TemporaryFile() as target:
        compress(source, target.fileno())
        target.seek(0)
        return target.read(), os.fstat(source).st_ino


def read(data: bytes) -> bytes:
    with holding(data) as descriptor:
        return b"".join(decompress(descriptor))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_back_also_by_other_programs(data: bytes) -> None:
    form, inode = packed(data)
    assert gzip.decompress(form) == data
    assert read(form) == data
    with holding(form) as descriptor:
        assert source_inode(descriptor) == inode


def test_a_file_of_gzip_is_read_and_has_no_source_inode() -> None:
    form = gzip.compress(LINES)
    assert read(form) == LINES
    with holding(form) as descriptor:
        assert source_inode(descriptor) == 0


@pytest.mark.parametrize("cut", [*range(40), 500, 3000, -9, -8, -5, -1])
def test_a_truncated_file_is_read_up_to_its_end(cut: int) -> None:
    form, _ = packed(LINES)
    result = read(form[:cut])
    assert LINES.startswith(result)
    assert len(result) >= len(LINES) * (cut % len(form)) // len(form) - 2 * 65536 // 10
    if -9 < cut < 0:
        assert result == LINES, "the end was cut off behind the text"


def test_a_wrong_checksum_does_not_hide_data() -> None:
    form, _ = packed(LINES)
    assert read(form[:-8] + bytes(8)) == LINES


def test_a_damaged_byte_ends_the_data() -> None:
    noise = bytes(range(256)) * 4 + os.urandom(200_000)
    form, _ = packed(noise)
    at = 100_000
    result = read(form[:at] + bytes(300) + form[at + 300 :])
    assert noise[: at - 1000] == result[: at - 1000]


@given(st.binary(max_size=200))
def test_hostile_bytes_do_not_raise(data: bytes) -> None:
    for form in (data, b"\x1f\x8b" + data, packed(b"")[0][:24] + data):
        read(form)
        with holding(form) as descriptor:
            assert (source_inode(descriptor) is None) is not form.startswith(b"\x1f\x8b")


def test_a_bomb_is_decompressed_in_small_blocks() -> None:
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        with holding(bomb) as descriptor:
            assert sum(len(block) for block in decompress(descriptor)) == 100_000_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_compression_needs_the_memory_of_a_block(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(LINES * 400)
    source = os.open(tmp_path / "plain", os.O_RDONLY)
    target = os.open(tmp_path / "packed", os.O_WRONLY | os.O_CREAT)
    tracemalloc.start()
    try:
        compress(source, target)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
        os.close(source)
        os.close(target)
    whole = zlib.decompress((tmp_path / "packed").read_bytes(), 31)
    assert whole == LINES * 400
