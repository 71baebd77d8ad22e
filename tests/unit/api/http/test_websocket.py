"""Frames of RFC 6455, in any cut and of hostile peers."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jaula.api.http import websocket
from jaula.api.http.websocket import BadFrame, Decoder, Opcode, Part
from jaula.errors import InvalidRequest


def masked(
    opcode: int, data: bytes, *, final: bool = True, mask: bytes = b"\x01\x02\x03\x04"
) -> bytes:
    size = len(data)
    first = (0x80 if final else 0) | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def joined(parts: list[Part]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for part in parts:
        if found and found[-1][0] == part.opcode and part.opcode < Opcode.CLOSE:
            found[-1] = (part.opcode, found[-1][1] + part.data)
        else:
            found.append((part.opcode, part.data))
    return found


def test_the_key_of_the_standard_has_its_answer() -> None:
    assert websocket.accept("dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("key", ["", "x", "dGhlIHNhbXBsZQ==", "dGhlIHNhbXBsZSBub25jZQ==\n"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest):
        websocket.accept(key)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_frame_says_its_length(size: int) -> None:
    made = websocket.frame(Opcode.BINARY, b"x" * size)
    assert made.endswith(b"x" * size)
    assert len(made) == size + (2 if size < 126 else 4 if size < 65536 else 10)


@given(some.lists(some.binary(max_size=300), max_size=5), some.integers(1, 50))
def test_messages_are_the_same_in_any_cut(messages: list[bytes], step: int) -> None:
    data = b"".join(masked(2, message) for message in messages)
    decoder, parts = Decoder(), []
    for start in range(0, len(data), step):
        parts += list(decoder.feed(data[start : start + step]))
    assert b"".join(part.data for part in parts) == b"".join(messages)


@pytest.mark.parametrize("size", [200, 70_000])
def test_long_messages_come_in_parts_with_a_ping_between(size: int) -> None:
    data = os.urandom(size)
    stream = masked(1, data[:100], final=False) + masked(9, b"hey") + masked(0, data[100:])
    found = joined(list(Decoder().feed(stream)))
    assert found == [(1, data[:100]), (9, b"hey"), (1, data[100:])]


def test_a_close_has_code_and_reason() -> None:
    (part,) = Decoder().feed(masked(8, b"\x03\xe8bye"))
    assert part == Part(Opcode.CLOSE, b"\x03\xe8bye")
    assert websocket.close(1000, "é" * 200) == bytes((0x88, 124)) + b"\x03\xe8" + "é".encode() * 61


@pytest.mark.parametrize(
    "stream",
    [
        b"\x82\x01x",  # not masked
        b"\xc2\x80",  # a reserved bit
        b"\x83\x80\0\0\0\0",  # an unknown opcode
        masked(9, b"x" * 126),  # a long control frame
        masked(8, b"", final=False),  # a control frame in parts
        masked(0, b"x"),  # goes on with nothing
        masked(2, b"x", final=False) + masked(2, b"y"),  # one message in another
        b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0",  # 64 bits of length
    ],
)
def test_what_breaks_the_protocol_is_refused(stream: bytes) -> None:
    with pytest.raises(BadFrame):
        list(Decoder().feed(stream))


@given(some.binary(max_size=400))
def test_noise_is_parts_or_refused(noise: bytes) -> None:
    try:
        list(Decoder().feed(noise))
    except BadFrame:
        pass
