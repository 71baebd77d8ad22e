"""Channels in the messages of a WebSocket, with hostile clients."""

from __future__ import annotations

import asyncio
import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stream_client import message
from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cri.streaming.channel_websocket import (
    Connection,
    MessageParser,
    Part,
    WebSocket,
)
from jaula.features.kubernetes.cri.streaming.streaming_transport import STREAM_BUFFER, ProtocolError
from jaula.spec.websocket_accept import accept_token
from unit.event_loop import idle


class Wire:
    """A transport whose client has sent ``pieces`` and is gone after them."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.sent = bytearray()
        self.unsent = 0

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def write(self, frame: bytes) -> None:
        self.sent += frame

    async def drain(self) -> None:
        pass

    async def send(self, frame: bytes) -> None:
        self.write(frame)

    def finish(self) -> None:
        pass


def received(*pieces: bytes, **options: bool) -> tuple[dict[int, bytes], bytes]:
    """Return the input of the channels 0 to 4, of which 0 and 4 are read, and what was sent."""

    async def main() -> tuple[dict[int, bytes], bytes]:
        wire = Wire(*pieces)
        connection = Connection(WebSocket(wire), 5, (0, 4), **options)
        await asyncio.wait_for(connection.run(), 5)
        return {n: await connection.channel(n).read() for n in range(5)}, bytes(wire.sent)

    return asyncio.run(main())


NOTHING = dict.fromkeys(range(5), b"")


def test_the_first_byte_of_a_message_is_its_channel() -> None:
    sent = message(b"\0in") + message(b"\4size") + message(b"\0put") + message(b"")
    assert received(sent) == (NOTHING | {0: b"input", 4: b"size"}, b"")


def test_a_message_may_come_in_fragments() -> None:
    sent = message(b"\0", fin=False) + message(b"in", 0, fin=False) + message(b"put", 0)
    assert received(sent)[0][0] == b"input"


def test_input_for_other_channels_is_dropped() -> None:
    assert received(message(b"\1x") + message(b"\5x") + message(b"\xffx"))[0] == NOTHING


def test_a_message_of_version_5_ends_a_channel() -> None:
    sent = message(b"\0in") + message(b"\xff\0") + message(b"\0late")
    assert received(sent, half_close=True)[0][0] == b"in"
    assert received(sent)[0][0] == b"inlate"


def test_a_channel_that_does_not_exist_cannot_be_ended() -> None:
    inputs, sent = received(message(b"\xff\5") + message(b"\0x"), half_close=True)
    assert sent == b"\x88\x02\x03\xea"  # 1002, protocol error
    assert inputs == NOTHING


def test_a_ping_is_answered() -> None:
    assert received(message(b"now", 9))[1] == b"\x8a\x03now"


def test_base64_has_the_channel_as_a_digit() -> None:
    sent = message(b"0" + base64.b64encode(b"input\xff"), 1)
    assert received(sent, base64=True)[0][0] == b"input\xff"


def test_invalid_base64_ends_the_connection() -> None:
    assert received(message(b"0!!!!", 1), base64=True)[1] == b"\x88\x02\x03\xea"


@given(st.binary(max_size=60), st.lists(st.integers(0, 90), max_size=4))
def test_the_parts_of_a_base64_message_do_not_matter(raw: bytes, cuts: list[int]) -> None:
    whole = b"0" + base64.b64encode(raw)
    edges = sorted({min(cut, len(whole)) for cut in (0, *cuts, len(whole))})
    parts = [whole[a:b] for a, b in itertools.pairwise(edges)]
    parser = MessageParser(base64=True)
    decoded = b""
    for index, part in enumerate(parts):
        for channel, piece in parser.feed(Part(part, index == len(parts) - 1)):
            assert channel == 0
            decoded += piece
    assert decoded == raw


@given(st.lists(st.tuples(st.binary(max_size=20), st.booleans())), st.booleans())
def test_no_message_fails_in_another_way(parts: list[tuple[bytes, bool]], base64: bool) -> None:
    parser = MessageParser(base64=base64)
    try:
        for part in parts:
            list(parser.feed(Part(*part)))
    except ProtocolError:
        pass


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=4), st.booleans())
def test_no_bytes_break_a_connection(pieces: list[bytes], base64: bool) -> None:
    received(message(b"\0x"), *pieces, base64=base64, half_close=True)


def test_an_unmasked_frame_ends_the_connection() -> None:
    assert received(b"\x82\x02\0x")[1].startswith(b"\x88")


def test_a_close_frame_is_answered() -> None:
    assert received(message(b"\x03\xe8", 8), message(b"\0late"))[1] == b"\x88\x02\x03\xe8"


def test_a_channel_that_is_not_read_stops_the_client() -> None:
    async def main() -> None:
        wire = Wire(*[message(b"\0" + b"x" * 65535)] * 100)
        connection = Connection(WebSocket(wire), 1, (0,))
        running = asyncio.ensure_future(connection.run())
        await idle()
        assert 100 - len(wire.pieces) <= STREAM_BUFFER // 65535 + 2
        size = 0
        while chunk := await connection.channel(0).read():
            size += len(chunk)
        await running
        assert size == 100 * 65535

    asyncio.run(main())


@pytest.mark.parametrize("key", ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==!"])
def test_an_invalid_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest, match="16 bytes in base64"):
        accept_token(key)
