"""CRC-64/GO-ISO: known values, and the definition bit by bit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.images.chunked.crc64 import Crc64

_REFLECTED = 0xD800000000000000
_ONES = (1 << 64) - 1


def bitwise(data: bytes) -> bytes:
    register = _ONES
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (_REFLECTED if register & 1 else 0)
    return (register ^ _ONES).to_bytes(8, "big")


def checksum(*parts: bytes) -> bytes:
    made = Crc64()
    for part in parts:
        made.update(part)
    return made.digest()


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", "0000000000000000"), (b"a", "3420000000000000"), (b"123456789", "b90956c775a41001")],
)
def test_known_values(data: bytes, expected: str) -> None:
    assert checksum(data).hex() == expected


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_the_parts_have_the_checksum_of_the_whole(first: bytes, second: bytes) -> None:
    assert checksum(first, second) == bitwise(first + second)


@pytest.mark.parametrize("size", [65535, 65536, 65537, 200_001])
def test_data_larger_than_a_block(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"\0" * (size % 256)
    assert checksum(data) == bitwise(data)
