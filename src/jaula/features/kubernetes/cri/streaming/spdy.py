"""SPDY/3.1 for the server's side, as far as Kubernetes uses it.

Sources: 'SPDY Protocol - Draft 3.1' of the Chromium project; moby/spdystream, which is the other
end in kubectl, crictl, kubelet and the API server. Like spdystream, the server has no flow control:
it ignores SETTINGS and WINDOW_UPDATE and sends none.

Facts about header blocks: all blocks of one direction are one zlib stream, with a dictionary that
both ends know. So a block that cannot be decompressed ends the connection, and a block of a frame
that is otherwise ignored has to be decompressed too.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from jaula.features.kubernetes.cri.streaming.backend import ClientGone
from jaula.features.kubernetes.cri.streaming.streaming_transport import (
    FRAME_SIZE,
    MAX_UNSENT,
    BufferPool,
    ProtocolError,
    ReceiveBuffer,
    Transport,
)

PROTOCOL = "SPDY/3.1"
VERSION = 3
MAX_CONTROL = 1 << 15  # bytes of a control frame
MAX_HEADERS = 1 << 14  # bytes of a header block after decompression
MAX_STREAMS = 1024  # open streams of a connection

_DICTIONARY_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language
accept-ranges age allow authorization cache-control connection content-base content-encoding
content-language content-length content-location content-md5 content-range content-type date etag
expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since
last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer
retry-after server te trailer transfer-encoding upgrade user-agent vary via warning
www-authenticate method get status
"""
_DICTIONARY_TEXT = (
    "200 OK\0\0\0\7version\0\0\0\10HTTP/1.1\0\0\0\3url\0\0\0\6public\0\0\0\12set-cookie"
    "\0\0\0\12keep-alive\0\0\0\6origin"
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00"
    " Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(word)) + word.encode() for word in _DICTIONARY_WORDS.split())
    + b"\0\0\0\6"
    + _DICTIONARY_TEXT.encode()
)
"""The dictionary of header compression (draft 3, section 2.6.10.1)."""

# A dictionary of 1,423 bytes fits a window of 2 KiB; we send empty blocks only.
_WINDOW_BITS, _MEMORY_LEVEL = 11, 1

_WORD = struct.Struct(">I")
_HEAD = struct.Struct(">II")
_CONTROL = 0x80000000
_FIN = 0x01
_UNIDIRECTIONAL = 0x02

_log = logging.getLogger("jaula.features.kubernetes.cri")


class FrameType(enum.IntEnum):
    """The type of a control frame."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ResetStatus(enum.IntEnum):
    """The status of RST_STREAM."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5


class GoAwayStatus(enum.IntEnum):
    """The status of GOAWAY."""

    OK = 0
    PROTOCOL_ERROR = 1


_LENGTHS = {  # bytes of frames that have no header block
    FrameType.RST_STREAM: 8,
    FrameType.PING: 4,
    FrameType.GOAWAY: 8,
    FrameType.WINDOW_UPDATE: 8,
}
_BLOCK_OFFSETS = {FrameType.SYN_STREAM: 10, FrameType.SYN_REPLY: 4, FrameType.HEADERS: 4}


class Data(NamedTuple):
    """A part of a DATA frame; ``fin`` comes with the last part."""

    stream_id: int
    data: bytes
    fin: bool


class SynStream(NamedTuple):
    """A request for a new stream."""

    stream_id: int
    headers: Mapping[str, str]
    fin: bool
    unidirectional: bool


class Headers(NamedTuple):
    """Further headers of a stream."""

    stream_id: int
    headers: Mapping[str, str]
    fin: bool


class Reset(NamedTuple):
    """The end of a stream in both directions."""

    stream_id: int
    status: int


class Ping(NamedTuple):
    """A request for the same frame, or the answer to one."""

    ping_id: int


class GoAway(NamedTuple):
    """The end of the client's session."""

    status: int


Frame = Data | SynStream | Headers | Reset | Ping | GoAway


# -- frames ------------------------------------------------------------------------------------


class FrameReader:
    """Parses the frames of one client. It holds at most one control frame, and no payload."""

    def __init__(self) -> None:
        self._pending = b""  # the beginning of a frame
        self._left = 0  # bytes of payload of the current DATA frame
        self._stream_id = 0
        self._fin = False
        self._inflater = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that ``data`` completes. The caller has to exhaust the iterator.

        :raises ProtocolError: when the bytes are not SPDY, or larger than the limits.
        """
        position = 0
        if self._pending:
            data = self._pending + data
            self._pending = b""
        while position < len(data):
            if self._left:
                part = data[position : position + self._left]
                position += len(part)
                self._left -= len(part)
                yield Data(self._stream_id, part, self._fin and not self._left)
                continue
            if len(data) - position < _HEAD.size:
                break
            word, rest = _HEAD.unpack_from(data, position)
            flags, length = rest >> 24, rest & 0xFFFFFF
            if not word & _CONTROL:
                if not word:
                    raise ProtocolError("a DATA frame has the stream id 0")
                position += _HEAD.size
                self._stream_id, self._left, self._fin = word, length, bool(flags & _FIN)
                if not length:
                    yield Data(word, b"", self._fin)
                continue
            kind = _control_type(word, length)
            end = position + _HEAD.size + length
            if len(data) < end:
                break
            frame = self._control(kind, flags, data[position + _HEAD.size : end])
            position = end
            if frame is not None:
                yield frame
        self._pending = data[position:]

    def _control(self, kind: FrameType, flags: int, body: bytes) -> Frame | None:
        if kind in (FrameType.SETTINGS, FrameType.WINDOW_UPDATE):
            return None
        (number,) = _WORD.unpack_from(body)
        if kind is FrameType.GOAWAY:
            return GoAway(_WORD.unpack_from(body, 4)[0])
        if not 0 < number < _CONTROL:
            raise ProtocolError(f"a {kind.name} frame has the id {number}")
        if kind is FrameType.PING:
            return Ping(number)
        if kind is FrameType.RST_STREAM:
            return Reset(number, _WORD.unpack_from(body, 4)[0])
        headers = parse_headers(self._inflate(body[_BLOCK_OFFSETS[kind] :]))
        if kind is FrameType.SYN_STREAM:
            return SynStream(number, headers, bool(flags & _FIN), bool(flags & _UNIDIRECTIONAL))
        if kind is FrameType.HEADERS:
            return Headers(number, headers, bool(flags & _FIN))
        return None  # SYN_REPLY: the server opens no streams

    def _inflate(self, block: bytes) -> bytes:
        """Return a header block; the compression goes on with the next one."""
        try:
            headers = self._inflater.decompress(block, MAX_HEADERS + 1)
        except zlib.error as error:
            raise ProtocolError(f"a header block is not valid zlib data: {error}") from None
        if len(headers) > MAX_HEADERS or self._inflater.unconsumed_tail:
            raise ProtocolError(f"a header block is larger than {MAX_HEADERS} bytes")
        if self._inflater.eof:
            raise ProtocolError("the stream of header blocks ended")
        return headers


def _control_type(word: int, length: int) -> FrameType:
    """Return the type of a control frame from its head, before its body is read."""
    version, number = word >> 16 & 0x7FFF, word & 0xFFFF
    if version != VERSION:
        raise ProtocolError(f"a frame has SPDY version {version} instead of {VERSION}")
    try:
        kind = FrameType(number)
    except ValueError:
        raise ProtocolError(f"a frame has the unknown type {number}") from None
    if length > MAX_CONTROL:
        raise ProtocolError(f"a {kind.name} frame is larger than {MAX_CONTROL} bytes")
    if length != _LENGTHS.get(kind, length) or length < _BLOCK_OFFSETS.get(kind, 0):
        raise ProtocolError(f"a {kind.name} frame has {length} bytes")
    return kind


def parse_headers(block: bytes) -> dict[str, str]:
    """Return the headers of a block. Of several values of one header, the first one counts.

    :raises ProtocolError: when the block is malformed, or a name is repeated or not lower case.
    """
    try:
        (count,) = _WORD.unpack_from(block)
        if count * 2 * _WORD.size > len(block):
            raise ProtocolError(f"a header block has no room for {count} headers")
        position = _WORD.size
        headers: dict[str, str] = {}
        for _ in range(count):
            texts = []
            for _ in range(2):
                (length,) = _WORD.unpack_from(block, position)
                position += _WORD.size
                if length > len(block) - position:
                    raise ProtocolError("a header is longer than its block")
                texts.append(block[position : position + length].decode("latin-1"))
                position += length
            name, value = texts
            if name != name.lower():
                raise ProtocolError(f"the header {name[:40]!r} is not lower case")
            if name in headers:
                raise ProtocolError(f"the header {name[:40]!r} is repeated")
            headers[name] = value.partition("\0")[0]
    except struct.error:
        raise ProtocolError("a header block is incomplete") from None
    if position != len(block):
        raise ProtocolError("a header block has bytes after its headers")
    return headers


class FrameWriter:
    """Formats the frames for one client."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(
            wbits=_WINDOW_BITS, memLevel=_MEMORY_LEVEL, zdict=DICTIONARY
        )

    def syn_reply(self, stream_id: int) -> bytes:
        """Return the acceptance of a stream, with no headers."""
        block = self._deflater.compress(_WORD.pack(0))
        block += self._deflater.flush(zlib.Z_SYNC_FLUSH)
        return _control_frame(FrameType.SYN_REPLY, _WORD.pack(stream_id) + block)


def data_frame(stream_id: int, data: bytes | memoryview, *, fin: bool = False) -> bytes:
    """Return a DATA frame; ``data`` has fewer than 16 MiB."""
    return b"".join((_HEAD.pack(stream_id, _FIN * fin << 24 | len(data)), data))


def rst_stream(stream_id: int, status: ResetStatus) -> bytes:
    """Return the frame that ends a stream in both directions."""
    return _control_frame(FrameType.RST_STREAM, _HEAD.pack(stream_id, status))


def ping(ping_id: int) -> bytes:
    """Return the answer to a PING."""
    return _control_frame(FrameType.PING, _WORD.pack(ping_id))


def goaway(last_stream_id: int, status: GoAwayStatus) -> bytes:
    """Return the frame that ends the session."""
    return _control_frame(FrameType.GOAWAY, _HEAD.pack(last_stream_id, status))


def _control_frame(kind: FrameType, body: bytes) -> bytes:
    return _HEAD.pack(_CONTROL | VERSION << 16 | kind, len(body)) + body


# -- streams -----------------------------------------------------------------------------------


class Stream:
    """A stream that the client has opened: a source, a sink and a duplex of :mod:`.backend`."""

    def __init__(
        self, connection: Connection, stream_id: int, headers: Mapping[str, str], pool: BufferPool
    ) -> None:
        self.id = stream_id
        self.headers = headers
        self._connection = connection
        self._input = ReceiveBuffer(pool)
        self._output_ended = False
        self._on_reset: Callable[[], object] | None = None

    async def read(self) -> bytes:
        """Return the next bytes, b'' at the end."""
        return await self._input.read()

    async def write(self, data: bytes | memoryview) -> None:
        """Send bytes and wait until the client has room.

        :raises ClientGone: when the stream or the connection has ended.
        """
        view = memoryview(data)
        for start in range(0, len(view), FRAME_SIZE):
            if self._output_ended:
                raise ClientGone("the client has reset the stream")
            await self._connection.send(data_frame(self.id, view[start : start + FRAME_SIZE]))

    def end(self) -> None:
        """Tell the client that nothing more is sent."""
        if not self._output_ended:
            self._output_ended = True
            self._connection.queue(data_frame(self.id, b"", fin=True))
            self._connection.forget_ended(self)

    def reset(self, status: ResetStatus = ResetStatus.CANCEL) -> None:
        """End the stream in both directions."""
        if not self.ended:
            self._connection.queue(rst_stream(self.id, status))
        self._end_both()
        self.discard()
        self._connection.forget_ended(self)

    def discard(self) -> None:
        """Drop the input that is buffered and all that follows."""
        self._input.discard()

    def on_reset(self, callback: Callable[[], object] | None) -> None:
        """Call ``callback``, instead of an earlier one, when the client resets the stream."""
        self._on_reset = callback

    @property
    def ended(self) -> bool:
        """Whether both directions have ended."""
        return self._output_ended and self._input.ended

    # -- called by the connection

    def receive(self, data: bytes, *, fin: bool) -> None:
        """Add input from the client, which ends it with ``fin``."""
        self._input.feed(data)
        if fin:
            self._input.end()

    def received_reset(self) -> None:
        """End the stream, which the client has reset."""
        self._end_both()
        if self._on_reset is not None:
            self._on_reset()

    def close_output(self) -> None:
        """Refuse further output: the client asked for a stream of one direction."""
        self._output_ended = True

    def _end_both(self) -> None:
        self._output_ended = True
        self._input.end()


Accept = Callable[[Stream], ResetStatus | None]
"""Takes over a new stream and returns None, or refuses it with a status."""


class Connection:
    """A SPDY session with one client. ``accept`` is called for each stream that it opens."""

    def __init__(self, transport: Transport, accept: Accept) -> None:
        self._transport = transport
        self._accept = accept
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self._pool = BufferPool()
        self._streams: dict[int, Stream] = {}
        self._last_stream_id = 0
        self._finished = False
        self.gone = asyncio.Event()  # no further input comes

    async def run(self) -> None:
        """Distribute the input until the client is gone or violates the protocol."""
        try:
            while data := await self._transport.read():
                for frame in self._reader.feed(data):
                    if isinstance(frame, GoAway):
                        return
                    self._receive(frame)
                await self._pool.room()
                if self._transport.unsent > MAX_UNSENT:  # answers that the client does not read
                    await self._transport.drain()
        except ProtocolError as error:
            _log.info("a SPDY client was disconnected: %s", error)
            self.queue(goaway(self._last_stream_id, GoAwayStatus.PROTOCOL_ERROR))
        except ClientGone:
            pass
        finally:
            self.gone.set()
            for stream in self._streams.values():
                stream.receive(b"", fin=True)

    def _receive(self, frame: Frame) -> None:
        if isinstance(frame, SynStream):
            self._open(frame)
        elif isinstance(frame, Ping):
            if frame.ping_id % 2:  # otherwise an answer to one of ours
                self.queue(ping(frame.ping_id))
        elif not isinstance(frame, GoAway) and (stream := self._streams.get(frame.stream_id)):
            if isinstance(frame, Reset):
                stream.received_reset()
            else:
                stream.receive(frame.data if isinstance(frame, Data) else b"", fin=frame.fin)
            self.forget_ended(stream)

    def _open(self, frame: SynStream) -> None:
        """Answer the request for a stream."""
        if self._finished:
            return
        if not frame.stream_id % 2 or frame.stream_id <= self._last_stream_id:
            self.queue(rst_stream(frame.stream_id, ResetStatus.PROTOCOL_ERROR))
            return
        self._last_stream_id = frame.stream_id
        if len(self._streams) >= MAX_STREAMS:
            self.queue(rst_stream(frame.stream_id, ResetStatus.REFUSED_STREAM))
            return
        stream = Stream(self, frame.stream_id, frame.headers, self._pool)
        if frame.unidirectional:
            stream.close_output()
        if frame.fin:
            stream.receive(b"", fin=True)
        self._streams[stream.id] = stream
        refusal = self._accept(stream)
        if refusal is None:
            self.queue(self._writer.syn_reply(stream.id))
        else:
            stream.reset(refusal)
        self.forget_ended(stream)

    def queue(self, frame: bytes) -> None:
        """Send a control frame or the end of a stream without waiting."""
        self._transport.write(frame)

    async def send(self, frame: bytes) -> None:
        """Send a DATA frame and wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        await self._transport.send(frame)

    def forget_ended(self, stream: Stream) -> None:
        """Remove a stream that has ended in both directions."""
        if stream.ended:
            self._streams.pop(stream.id, None)

    def finish(self) -> None:
        """End all streams, drop further input, and tell the client that the session is over."""
        self._finished = True
        for stream in tuple(self._streams.values()):
            stream.discard()
            stream.end()
        self.queue(goaway(self._last_stream_id, GoAwayStatus.OK))
        self._transport.finish()
