"""SPDY's frames and streams, with hostile clients."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stream_client as client
from harness.stream_client import Deflater, control, data
from jaula.features.kubernetes.cri.streaming import spdy
from jaula.features.kubernetes.cri.streaming.backend import ClientGone
from jaula.features.kubernetes.cri.streaming.spdy import (
    Connection,
    FrameReader,
    ResetStatus,
    Stream,
)
from jaula.features.kubernetes.cri.streaming.streaming_transport import (
    MAX_UNSENT,
    STREAM_BUFFER,
    ProtocolError,
)
from unit.event_loop import idle


def frames(*pieces: bytes) -> list[spdy.Frame]:
    reader = FrameReader()
    return [frame for piece in pieces for frame in reader.feed(piece)]


def merged(parsed: list[spdy.Frame]) -> list[spdy.Frame]:
    """Join the parts of DATA frames."""
    result: list[spdy.Frame] = []
    for frame in parsed:
        last = result[-1] if result else None
        if (
            isinstance(frame, spdy.Data)
            and isinstance(last, spdy.Data)
            and last.stream_id == frame.stream_id
            and not last.fin
        ):
            result[-1] = spdy.Data(frame.stream_id, last.data + frame.data, frame.fin)
        else:
            result.append(frame)
    return result


def test_the_dictionary_is_that_of_spdy_3() -> None:
    # zlib sends this number in the header of a stream with a dictionary
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_a_stream_is_requested_with_its_headers() -> None:
    deflater = Deflater()
    first = deflater.syn_stream(1, streamtype="error", port="80")
    second = deflater.syn_stream(3, client.FIN, streamtype="a\0b")
    assert frames(first + second) == [
        spdy.SynStream(1, {"streamtype": "error", "port": "80"}, False, False),
        spdy.SynStream(3, {"streamtype": "a"}, True, False),
    ]


def test_settings_and_window_updates_are_ignored() -> None:
    settings = control(client.SETTINGS, struct.pack(">III", 1, 7, 65536))
    update = control(client.WINDOW_UPDATE, struct.pack(">II", 1, 4096))
    assert frames(settings + update + control(client.PING, struct.pack(">I", 5))) == [spdy.Ping(5)]


def test_the_block_of_a_syn_reply_is_decompressed() -> None:
    deflater = Deflater()
    reply = control(client.SYN_REPLY, struct.pack(">I", 2) + deflater.compress(client.block(())))
    assert len(frames(reply + deflater.syn_stream(1, streamtype="error"))) == 1


FRAMES = st.lists(
    st.one_of(
        st.builds(
            data, st.integers(1, 9), st.binary(max_size=60), st.sampled_from((0, client.FIN))
        ),
        st.builds(lambda n: control(client.PING, struct.pack(">I", n)), st.integers(1, 99)),
        st.builds(
            lambda n: control(client.RST_STREAM, struct.pack(">II", n, 5)), st.integers(1, 99)
        ),
    ),
    max_size=8,
)


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1))
def test_the_pieces_in_which_frames_arrive_do_not_matter(
    sent: list[bytes], sizes: list[int]
) -> None:
    stream = Deflater().syn_stream(11, streamtype="data") + b"".join(sent)
    pieces, position, turn = [], 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        pieces.append(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert merged(frames(*pieces)) == merged(frames(stream))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_bytes_fail_in_another_way(pieces: list[bytes]) -> None:
    try:
        frames(*pieces)
    except ProtocolError:
        pass


@given(st.sampled_from((1, 2, 3, 4, 6, 7, 8, 9)), st.binary(max_size=80), st.integers(0, 255))
def test_no_control_frame_fails_in_another_way(kind: int, body: bytes, flags: int) -> None:
    try:
        frames(control(kind, body, flags))
    except ProtocolError:
        pass


@given(st.binary(max_size=200))
def test_no_header_block_fails_in_another_way(raw: bytes) -> None:
    try:
        frames(control(client.SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + Deflater().compress(raw)))
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (control(client.PING, b"\0\0\0\1", version=2), "has SPDY version 2 instead of 3"),
        (control(5, b""), "unknown type 5"),
        (control(client.PING, b"\0\0\0\0"), "a PING frame has the id 0"),
        (control(client.PING, b"\0" * 5), "a PING frame has 5 bytes"),
        (control(client.GOAWAY, b"\0" * 4), "a GOAWAY frame has 4 bytes"),
        (control(client.SYN_STREAM, b"\0" * 9), "a SYN_STREAM frame has 9 bytes"),
        (control(client.RST_STREAM, b"\xff" * 8), "the id 4294967295"),
        (data(0, b"x"), "stream id 0"),
        # only the head: the server does not wait for the body
        (struct.pack(">II", 0x80030001, 0xFFFFFF), "a SYN_STREAM frame is larger than 32768"),
        (struct.pack(">II", 0x80030004, 0xFFFFFF), "a SETTINGS frame is larger than 32768"),
        (control(client.SYN_STREAM, b"\0\0\0\1" + b"\0" * 30), "not valid zlib data"),
    ],
)
def test_an_invalid_frame_ends_the_connection(hostile: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        frames(hostile)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "incomplete"),
        (struct.pack(">I", 0xFFFFFFFF), "no room for 4294967295 headers"),
        (struct.pack(">II", 1, 0xFFFFFFFF) + b"x" * 8, "longer than its block"),
        (struct.pack(">II", 1, 4) + b"name", "incomplete"),
        (client.block([("a", "1"), ("a", "2")]), "'a' is repeated"),
        (client.block([("Port", "80")]), "'Port' is not lower case"),
        (client.block([("a", "1")]) + b"x", "bytes after its headers"),
        (b"\0" * (1 << 20), "larger than 16384 bytes"),
        (client.block([("a", "x" * 16384)]), "larger than 16384 bytes"),
    ],
)
def test_an_invalid_header_block_ends_the_connection(raw: bytes, message: str) -> None:
    body = struct.pack(">IIH", 1, 0, 0) + Deflater().compress(raw)
    with pytest.raises(ProtocolError, match=message):
        frames(control(client.SYN_STREAM, body))


def test_the_stream_of_header_blocks_does_not_end() -> None:
    deflater = zlib.compressobj(zdict=spdy.DICTIONARY)
    ended = deflater.compress(client.block(())) + deflater.flush()
    with pytest.raises(ProtocolError, match="stream of header blocks ended"):
        frames(control(client.SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + ended))


def test_a_frame_before_an_invalid_one_is_processed() -> None:
    parsed = FrameReader().feed(data(1, b"x") + data(0, b""))
    assert next(parsed) == spdy.Data(1, b"x", False)
    with pytest.raises(ProtocolError):
        next(parsed)


# -- connections -------------------------------------------------------------------------------


class Wire:
    """A transport whose client has sent ``pieces``. It waits after them, unless ``closed``."""

    def __init__(self, *pieces: bytes, closed: bool = True) -> None:
        self.pieces = list(pieces)
        self.closed = closed
        self.sent = bytearray()
        self.unsent = 0
        self.drained = 0
        self.finished = False

    async def read(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if not self.closed:
            await asyncio.Event().wait()
        return b""

    def write(self, frame: bytes) -> None:
        self.sent += frame

    async def drain(self) -> None:
        self.drained += 1
        self.unsent = 0

    async def send(self, frame: bytes) -> None:
        self.write(frame)

    def finish(self) -> None:
        self.finished = True


def resets(wire: Wire) -> dict[int, int]:
    parsed = frames(bytes(wire.sent))
    return {frame.stream_id: frame.status for frame in parsed if isinstance(frame, spdy.Reset)}


def run(
    wire: Wire, accept: Callable[[Stream], ResetStatus | None] = lambda stream: None
) -> Connection:
    async def main() -> Connection:
        connection = Connection(wire, accept)
        await asyncio.wait_for(connection.run(), 5)
        return connection

    return asyncio.run(main())


def test_a_flood_of_streams_is_refused() -> None:
    deflater = Deflater()
    flood = [deflater.syn_stream(n, streamtype="x") for n in range(1, 4000, 2)]
    wire = Wire(*flood)
    run(wire)
    refused = resets(wire)
    assert len(refused) == 2000 - spdy.MAX_STREAMS
    assert set(refused.values()) == {ResetStatus.REFUSED_STREAM}


def test_streams_that_the_client_resets_are_forgotten() -> None:
    deflater = Deflater()
    pieces = [
        deflater.syn_stream(n, streamtype="x")
        + control(client.RST_STREAM, struct.pack(">II", n, 5))
        for n in range(1, 4 * spdy.MAX_STREAMS, 2)
    ]
    wire = Wire(*pieces)
    run(wire)
    assert resets(wire) == {}


def test_ids_of_streams_are_odd_and_grow() -> None:
    deflater = Deflater()
    wire = Wire(*(deflater.syn_stream(n) for n in (2, 5, 3, 5, 7)))
    run(wire)
    assert resets(wire) == dict.fromkeys((2, 3, 5), ResetStatus.PROTOCOL_ERROR)


def test_a_ping_is_answered_and_an_answer_is_not() -> None:
    wire = Wire(*(control(client.PING, struct.pack(">I", n)) for n in (1, 2, 3)))
    run(wire)
    assert frames(bytes(wire.sent)) == [spdy.Ping(1), spdy.Ping(3)]


def test_a_client_that_does_not_read_its_answers_is_not_read_either() -> None:
    wire = Wire(*[control(client.PING, b"\0\0\0\1")] * 3)
    wire.unsent = MAX_UNSENT + 1
    run(wire)
    assert wire.drained == 1


def test_a_violation_is_answered_with_goaway() -> None:
    wire = Wire(data(0, b""))
    run(wire)
    assert frames(bytes(wire.sent)) == [spdy.GoAway(spdy.GoAwayStatus.PROTOCOL_ERROR)]


def test_data_of_unknown_streams_is_dropped() -> None:
    wire = Wire(data(9, b"x" * 100), control(client.RST_STREAM, struct.pack(">II", 9, 5)))
    run(wire)
    assert wire.sent == b""


def test_a_stream_that_is_not_read_stops_the_client() -> None:
    async def main() -> None:
        streams: list[Stream] = []
        piece = data(1, b"x" * 65528)
        wire = Wire(Deflater().syn_stream(1), *[piece] * 100)
        connection = Connection(wire, streams.append)
        running = asyncio.ensure_future(connection.run())
        await idle()
        held = 100 - len(wire.pieces)
        assert held <= STREAM_BUFFER // 65528 + 2
        assert not running.done()
        size = 0
        while chunk := await streams[0].read():
            size += len(chunk)
        await running
        assert size == 100 * 65528

    asyncio.run(main())


def test_tiny_frames_count_by_the_memory_that_they_need() -> None:
    async def main() -> None:
        pieces = [data(1, b"x") * 5000] * 50
        wire = Wire(Deflater().syn_stream(1), *pieces)
        running = asyncio.ensure_future(Connection(wire, lambda stream: None).run())
        await idle()
        assert len(wire.pieces) >= 45  # 25,000 chunks at most
        running.cancel()

    asyncio.run(main())


def test_a_stream_ends_when_the_client_is_gone() -> None:
    streams: list[Stream] = []
    wire = Wire(Deflater().syn_stream(1) + data(1, b"input"))
    connection = run(wire, streams.append)
    assert connection.gone.is_set()
    assert asyncio.run(streams[0].read()) == b"input"
    assert asyncio.run(streams[0].read()) == b""


def test_a_stream_that_was_reset_takes_no_output() -> None:
    streams: list[Stream] = []
    wire = Wire(Deflater().syn_stream(1) + control(client.RST_STREAM, struct.pack(">II", 1, 5)))
    run(wire, streams.append)
    with pytest.raises(ClientGone):
        asyncio.run(streams[0].write(b"x"))


def test_the_end_of_a_session_ends_its_streams() -> None:
    wire = Wire(Deflater().syn_stream(1), data(1, b"unread"))
    run(wire).finish()
    kinds = [type(frame).__name__ for frame in frames(bytes(wire.sent))]
    assert kinds[-2:] == ["Data", "GoAway"]
    assert wire.finished


@given(st.lists(st.binary(max_size=100), max_size=4))
def test_no_bytes_break_a_connection(pieces: list[bytes]) -> None:
    deflater = Deflater()
    run(Wire(deflater.syn_stream(1), *[piece or b"\0" for piece in pieces]))
