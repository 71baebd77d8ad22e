"""Compressed streams: every compression is detected, damage is an error, memory is bounded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
from collections.abc import Callable

import pytest

from jaula.errors import InvalidRequest
from jaula.storage.compression import (
    MAGIC_LENGTH,
    Compression,
    decompress_stream,
    detect_compression,
)


def zstd(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression.zstd import CompressionParameter, compress
    else:
        from backports.zstd import CompressionParameter, compress
    return compress(data, options={CompressionParameter.checksum_flag: 1})


KINDS: list[tuple[Compression, Callable[[bytes], bytes]]] = [
    (Compression.GZIP, gzip.compress),
    (Compression.ZSTD, zstd),
    (Compression.BZIP2, bz2.compress),
    (Compression.XZ, lzma.compress),
]
DATA = bytes(range(256)) * 5000


def read(data: bytes) -> tuple[bytes, Compression]:
    stream, kind = decompress_stream(io.BytesIO(data))
    return io.BufferedReader(stream, 1 << 16).read(), kind


@pytest.mark.parametrize(("kind", "compress"), KINDS)
def test_a_stream_of_any_compression_is_read(
    kind: Compression, compress: Callable[[bytes], bytes]
) -> None:
    assert read(compress(DATA)) == (DATA, kind)


@pytest.mark.parametrize(("kind", "compress"), KINDS)
def test_members_that_follow_one_another_are_one_stream(
    kind: Compression, compress: Callable[[bytes], bytes]
) -> None:
    assert read(compress(DATA[:7000]) + compress(DATA[7000:])) == (DATA, kind)


@pytest.mark.parametrize(("kind", "compress"), KINDS)
def test_a_truncated_stream_is_an_error(
    kind: Compression, compress: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(InvalidRequest, match="damaged"):
        read(compress(DATA)[:-3])


@pytest.mark.parametrize(("kind", "compress"), KINDS)
def test_a_damaged_stream_is_an_error(
    kind: Compression, compress: Callable[[bytes], bytes]
) -> None:
    data = bytearray(compress(DATA))
    for place in range(len(data) // 3, 2 * len(data) // 3):
        data[place] ^= 0x55
    with pytest.raises(InvalidRequest, match="damaged"):
        read(bytes(data))


@pytest.mark.parametrize("data", [b"", b"a", b"plain text", bytes(100_000)])
def test_an_uncompressed_stream_is_unchanged(data: bytes) -> None:
    assert read(data) == (data, Compression.NONE)


def test_a_source_of_single_bytes_is_detected() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    stream, kind = decompress_stream(Slow(gzip.compress(b"hello")))
    assert (stream.read(), kind) == (b"hello", Compression.GZIP)


def test_zeros_after_a_gzip_member_are_padding() -> None:
    assert read(gzip.compress(b"hello") + bytes(512))[0] == b"hello"


@pytest.mark.parametrize("magic", [b"BZh9", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"])
def test_a_tar_is_plain_whatever_the_name_of_its_first_entry(magic: bytes) -> None:
    head = magic + bytes(257 - len(magic)) + b"ustar\x0000"
    assert detect_compression(head[:MAGIC_LENGTH]) is Compression.NONE
    assert detect_compression(magic + bytes(4)) is not Compression.NONE
