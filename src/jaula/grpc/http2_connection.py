"""One HTTP/2 connection that carries gRPC messages, in both roles.

h2 has the state of the protocol and of the header compression, and does no I/O. This module adds
the socket, the messages of gRPC, the flow control of what arrives, and the ceilings.

Payload that arrives does not pass through h2: for a frame of 16 KiB it takes ten times as long as
everything else here. :meth:`Connection._receive` reads the frames, takes the payload of DATA
frames, and gives all other frames to h2. For the end of a stream, h2 gets an empty DATA frame. So
h2 never counts received payload, and the windows of both directions of the peer's data are counted
here only.

What a peer can make the engine hold is bounded: ``Limits.window`` bytes of one stream that were
received and not consumed, about ``Limits.held`` bytes of all streams together, and the bytes that
wait to be sent. Messages wait while :data:`HIGH_WATER` bytes are unsent. At four times as many,
nothing is read: a peer that makes us answer (PING, SETTINGS, resets) has to read the answers.
Messages alone do not reach that mark, so two such peers do not wait for each other. A
:class:`jaula.caller_quota.CallerShare` bounds what all connections of a caller hold together.

What a peer can make the engine do is bounded too. Frames that carry no message are counted against
those that do, and a connection with too many of them ends. Other tasks run every
:data:`_SLICE_SECONDS`, since a peer that sends faster than its frames are handled would otherwise
keep the event loop.

Facts about asyncio: ``sock_recv`` does not suspend its task while the socket has data.

Source: RFC 9113 (6.1 DATA, 6.5.2 settings, 6.9 flow control), grpc/grpc ``doc/PROTOCOL-HTTP2.md``.
CVE-2023-44487 (streams that are opened and reset) and CVE-2025-8671 (streams that the server is
made to reset) are why resets have a rate. CVE-2019-9512, 9515, 9518 (floods of PING, SETTINGS and
empty DATA frames) are why frames without a message are counted.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import msgspec
from h2.config import H2Configuration
from h2.settings import SettingCodes

from jaula.caller_quota import CallerShare
from jaula.grpc.grpc_status import Code, GrpcError, decode_message, parse_code

HIGH_WATER = 1 << 20  # bytes that wait to be sent
_CHUNK = 1 << 18  # bytes that are read at once
_FEW, _MANY = 1 << 14, 3 << 16  # bytes of one read, after which a short pause gathers more
_GATHER_SECONDS, _LATE_SECONDS = 0.0005, 0.002  # of that pause, and of one that took too long
_BUSY_READS = 128  # reads without a pause after one that took too long
_FRAME_HEADER = 9  # bytes
_MAX_FRAME = 16384  # bytes of payload: the default of SETTINGS_MAX_FRAME_SIZE, which is not raised
_MESSAGE_HEADER = 5  # bytes
_DATA, _HEADERS, _SETTINGS, _WINDOW_UPDATE = 0, 1, 4, 8  # frame types
_SETTING = 6  # bytes of one parameter of a SETTINGS frame
_SLICE_SECONDS = 0.005  # in which frames are handled before other tasks run
_SPARE_FRAMES = 10_000  # frames without a message that a peer may send before others
_SPARE_PER_SECOND, _SPARE_PER_DATA = 100, 2  # by which the number grows again, up to that
_FRAGMENT = 128  # bytes; DATA frames with fewer count as such if they complete no message
_END_STREAM = 1
_PREFACE = 24  # bytes that a client sends first
_RESETS, _RESET_SECONDS = 200, 30.0  # resets that a peer may send in this time
_DEFAULT_WINDOW = 65535  # bytes
_CLOSE_SECONDS = 0.5  # for the peer to read what was sent last

Headers = Sequence[tuple[str, str]]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The ceilings of a connection.

    ``window`` is the number of received bytes of a stream that may be unconsumed, and the window of
    the connection. ``message`` is the size of one message; it fits into three quarters of a window,
    since the last quarter may be consumed already and not yet announced. ``held`` is the number of
    unconsumed bytes of all streams at which the connection's window stops, ``partial`` that of
    incomplete messages at which the connection ends. ``headers`` is the size of one list of
    headers. ``streams`` are open at once. ``requests`` is the number of messages that the peer may
    send in one call, None for any number. ``stall`` is the time in which the peer has to read a
    part of an answer, None for any time.
    """

    streams: int = 100
    headers: int = 64 * 1024  # bytes
    window: int = 6 << 20  # bytes
    message: int = 4 << 20  # bytes
    held: int = 16 << 20  # bytes
    partial: int = 12 << 20  # bytes
    requests: int | None = None
    stall: float | None = None  # seconds


class ConnectionLost(GrpcError):
    """The peer is gone, or violated the protocol."""

    def __init__(self, message: str = "the connection is closed") -> None:
        super().__init__(Code.UNAVAILABLE, message)


class Stream:
    """One call on a connection. ``headers`` are those that the peer sent first."""

    def __init__(self, connection: Connection, id: int) -> None:
        self.id = id
        self.headers: dict[str, str] = {}
        self.status: GrpcError | None = None  # of a call that we made, when it has ended
        self.remote_open = True
        self.window: int = connection.limits.window  # bytes that the peer may still send
        self.held = 0  # bytes that were received and not consumed
        self.taken = 0  # bytes of the caller's share
        self.task: asyncio.Task[None] | None = None  # answers the call
        self._connection = connection
        self._messages: deque[bytes] = deque()
        self._received = 0  # messages
        self._partial = bytearray()
        self._consumed = 0  # bytes, not yet told to the peer
        self._changed = asyncio.Event()
        self._can_send = asyncio.Event()
        self._reset: GrpcError | None = None
        self._refusal: GrpcError | None = None  # of what the peer has sent

    # -- receiving -------------------------------------------------------------------------------

    async def receive(self) -> bytes | None:
        """Return the next message; None at the end of the peer's messages.

        :raises GrpcError: when the call failed or the connection is lost.
        """
        while not self._messages:
            if not await self._wait():
                return None
        message = self._messages.popleft()
        self.consume(len(message) + _MESSAGE_HEADER)
        return message

    async def receive_all(self) -> list[bytes]:
        """Return the messages that have arrived, at least one; none at the end.

        The caller calls :meth:`consume` with their sizes when it has dealt with them.

        :raises GrpcError: when the call failed or the connection is lost.
        """
        while not self._messages:
            if not await self._wait():
                return []
        messages = list(self._messages)
        self._messages.clear()
        return messages

    async def _wait(self) -> bool:
        """Wait for a change; return False at the end."""
        if self._reset is not None:
            raise self._reset
        if self._refusal is not None:
            raise self._refusal
        if not self.remote_open:
            if self.status is not None and self.status.code is not Code.OK:
                raise self.status
            return False
        self._changed.clear()
        await self._changed.wait()
        return True

    def consume(self, size: int) -> None:
        """Allow the peer to send ``size`` more bytes."""
        size = min(size, self.held)
        self.held -= size
        self._consumed += size
        if self._consumed >= self._connection.limits.window // 4:
            self._connection.extend_window(self, self._consumed)
            self._consumed = 0
        self._connection.consume(size)

    def add(self, data: bytes | memoryview) -> bool:
        """Take payload that has arrived; return whether it completes a message.

        :raises GrpcError: when a message is too large, compressed or one too many.
        """
        partial = self._partial
        before = len(partial)
        partial += data
        start = 0
        while len(partial) - start >= _MESSAGE_HEADER:
            flag, size = struct.unpack_from("!BI", partial, start)
            if flag:
                raise GrpcError(Code.UNIMPLEMENTED, "compressed messages are not supported")
            if size > self._connection.limits.message:
                raise GrpcError(
                    Code.RESOURCE_EXHAUSTED,
                    f"a message of {size} bytes exceeds {self._connection.limits.message}",
                )
            end = start + _MESSAGE_HEADER + size
            if end > len(partial):
                break
            self._received += 1
            if self._received > (self._connection.limits.requests or self._received):
                raise GrpcError(Code.INVALID_ARGUMENT, "the call has too many requests")
            self._messages.append(bytes(partial[start + _MESSAGE_HEADER : end]))
            start = end
        if start:
            del partial[:start]
            self._changed.set()
        self._connection.partial += len(partial) - before
        return start > 0

    # -- sending ---------------------------------------------------------------------------------

    async def send(self, message: bytes) -> None:
        """Send one message; wait for the peer's window.

        :raises GrpcError: when the call has ended or the connection is lost, the peer does not read
            the message, or the caller has used up its share of memory.
        """
        share = self._connection.share
        if share is not None and not share.take(len(message)):
            raise GrpcError(Code.RESOURCE_EXHAUSTED, "too many answers wait to be read")
        try:
            await self._send(message)
        except TimeoutError:
            raise GrpcError(Code.CANCELLED, "the peer does not read the answer") from None
        finally:
            if share is not None:
                share.give_back(len(message))

    async def _send(self, message: bytes) -> None:
        head, data = struct.pack("!BI", 0, len(message)), memoryview(message)
        while head or data:
            await self._connection.drain()
            self.check()
            if self.status is not None:  # the peer has ended the call before it read all
                if self.status.code is Code.OK:
                    raise GrpcError(Code.CANCELLED, "the peer has ended the call")
                raise self.status
            room = self._connection.room(self.id)
            if not room:
                self._can_send.clear()
                if not self._connection.room(self.id):
                    async with asyncio.timeout(self._connection.limits.stall):
                        await self._can_send.wait()
                continue
            part = head[:room]
            size = room - len(part)
            self._connection.send_data(self.id, part + data[:size])
            head, data = head[room:], data[size:]

    def end(self) -> None:
        """Declare that no more messages follow, in a call that we made."""
        if self._reset is None:
            self._connection.end_stream(self.id)

    def check(self) -> None:
        """Raise the error of a stream that was reset.

        :raises GrpcError: when it was.
        """
        if self._reset is not None:
            raise self._reset

    def close(self) -> None:
        """Forget the stream; reset it if it has not ended."""
        self._connection.close_stream(self)

    # -- called by the connection ----------------------------------------------------------------

    def wake(self) -> None:
        """Let senders look at the window again."""
        self._can_send.set()

    def finish(self) -> None:
        """Note that the peer sends no more."""
        self.remote_open = False
        self._changed.set()
        self._can_send.set()

    def refuse(self, error: GrpcError) -> None:
        """Drop what the peer sends from now on; :meth:`receive` raises the error."""
        self._refusal = error
        self.remote_open = False
        self._messages.clear()
        self._drop_partial()
        self._changed.set()

    def _drop_partial(self) -> None:
        self._connection.partial -= len(self._partial)
        self._partial.clear()

    def fail(self, error: GrpcError) -> None:
        """End the stream with an error."""
        if self._reset is None and (self.remote_open or self.status is None):
            self._reset = error  # of a call that has not ended before
        self.remote_open = False
        self._drop_partial()
        self._changed.set()
        self._can_send.set()
        if self.task is not None:
            self.task.cancel()


class Connection:
    """The frames of one socket. ``accept`` gets the calls of the peer; None in a client.

    ``share`` is the memory of the peer's requests, each until its call ends, and of its answers.
    """

    def __init__(
        self,
        limits: Limits,
        accept: Callable[[Stream], None] | None = None,
        share: CallerShare | None = None,
    ) -> None:
        self.limits = limits
        self.share = share
        self.streams: dict[int, Stream] = {}
        self.partial = 0  # bytes of incomplete messages
        self.closed: asyncio.Event = asyncio.Event()
        self.refusing = False  # calls that the peer begins are refused; it may make them elsewhere
        self._accept = accept
        config = H2Configuration(client_side=accept is None, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._window = limits.window  # bytes that the peer may still send
        self._held = 0  # bytes that were received and not consumed
        self._unannounced = 0  # bytes that were received, for which the window was not extended
        self._pending = b""  # of an incomplete frame
        self._preface = 0 if accept is None else _PREFACE
        self._out = bytearray()
        self._unsent = 0  # bytes, those that are being sent included
        self._written = 0  # bytes
        self._writable = asyncio.Event()  # bytes wait to be sent
        self._last = asyncio.Event()  # nothing more will be sent
        self._drained = asyncio.Event()
        self._drained.set()
        self._spare = float(_SPARE_FRAMES)
        self._spare_at = time.monotonic()
        self._busy_reads = 0
        self._resets: deque[float] = deque(maxlen=_RESETS)
        self._error: GrpcError | None = None
        self._reader: asyncio.Task[None] | None = None
        self._begin()

    async def run(self, sock: socket.socket, early: bytes = b"") -> None:
        """Carry frames until either side ends the connection. The caller closes the socket."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        writer = loop.create_task(self._write(sock))
        self._reader = loop.create_task(self._read(sock, early))
        try:
            await asyncio.wait((self._reader,))
            if not self._reader.cancelled():
                self._reader.result()
        finally:
            self._reader.cancel()
            self.close()
            try:
                await self._send_rest(writer)
            finally:
                writer.cancel()
                await asyncio.wait((writer,))

    async def _send_rest(self, writer: asyncio.Task[None]) -> None:
        """Send what is buffered, which has the reason of the end, if the peer reads it at once."""
        self._last.set()
        self._writable.set()
        await asyncio.wait((writer,), timeout=_CLOSE_SECONDS)

    def _begin(self) -> None:
        # With the values of the first SETTINGS frame the peer's streams begin with our window.
        settings: dict[SettingCodes | int, int] = {
            SettingCodes.INITIAL_WINDOW_SIZE: self.limits.window,
            SettingCodes.MAX_HEADER_LIST_SIZE: self.limits.headers,
            SettingCodes.ENABLE_PUSH: 0,
        }
        if self._accept is not None:
            settings[SettingCodes.MAX_CONCURRENT_STREAMS] = self.limits.streams
            del settings[SettingCodes.ENABLE_PUSH]
        self._h2.local_settings.update(settings)
        self._h2.local_settings.acknowledge()
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(self.limits.window - _DEFAULT_WINDOW)
        self._flush()

    async def _read(self, sock: socket.socket, early: bytes) -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        data: bytes | memoryview = early
        size = 0
        try:
            while self._error is None:
                if data:
                    await self._receive(data)
                    self._flush()
                    if self._unsent >= 4 * HIGH_WATER:
                        await self.drain()
                    if self.closed.is_set():
                        return
                if _FEW <= size < _MANY:
                    await self._gather()
                else:
                    await asyncio.sleep(0)
                size = await loop.sock_recv_into(sock, buffer)
                if not size:
                    return
                data = view[:size]
        except h2.exceptions.ProtocolError as error:
            self._flush()
            self._error = ConnectionLost(f"the peer violates HTTP/2: {error}")
        except GrpcError as error:
            self._h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self._flush()
            self._error = error
        except OSError as error:
            self._error = ConnectionLost(f"the connection is lost: {error.strerror}")

    async def _gather(self) -> None:
        """Let the peer fill the socket's buffer, so that fewer reads and threads' turns are needed.

        On a busy machine a pause gives the processor away for much longer. Then there is none.
        """
        if self._busy_reads:
            self._busy_reads -= 1
            return
        began = time.monotonic()
        await asyncio.sleep(_GATHER_SECONDS)
        if time.monotonic() - began > _LATE_SECONDS:
            self._busy_reads = _BUSY_READS

    async def _write(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._writable.clear()
                while self._out:
                    out, self._out = self._out, bytearray()
                    for start in range(0, len(out), _CHUNK):
                        part = memoryview(out)[start : start + _CHUNK]
                        await loop.sock_sendall(sock, part)
                        self._unsent -= len(part)
                        self._written += len(part)
                    if self._unsent < HIGH_WATER:
                        self._drained.set()
                if self._last.is_set():
                    return
                await self._writable.wait()
        except OSError as error:
            self._fail(ConnectionLost(f"the connection is lost: {error.strerror}"))

    # -- frames that arrive ----------------------------------------------------------------------

    async def _receive(self, data: bytes | memoryview) -> None:
        """Take the bytes of whole frames; keep an incomplete one. Let other tasks run meanwhile.

        :raises ProtocolError: when the peer violates HTTP/2.
        :raises GrpcError: when it exceeds a limit.
        """
        pending = self._pending + bytes(data)
        start = 0
        if self._preface:
            start = min(self._preface, len(pending))
            self._handle(self._h2.receive_data(pending[:start]))
            self._preface -= start
        end = len(pending)
        view = memoryview(pending)
        until = time.monotonic() + _SLICE_SECONDS
        while end - start >= _FRAME_HEADER and self._error is None:
            if time.monotonic() > until:
                self._flush()
                await asyncio.sleep(0)
                until = time.monotonic() + _SLICE_SECONDS
            size = int.from_bytes(view[start : start + 3])
            if size > _MAX_FRAME:
                raise h2.exceptions.FrameTooLargeError(f"a frame of {size} bytes")
            after = start + _FRAME_HEADER + size
            if after > end:
                break
            kind = view[start + 3]
            if kind == _DATA:
                self._receive_data(view[start:after])
            else:
                if kind != _HEADERS:
                    self._count_spare(1 + size // _SETTING if kind == _SETTINGS else 1)
                self._handle(self._h2.receive_data(pending[start:after]))
            start = after
        self._pending = pending[start:]

    def _count_spare(self, cost: int = 1) -> None:
        """Count a frame that carries no message.

        :raises GrpcError: when there are too many.
        """
        self._spare -= cost
        if self._spare < 0:
            now = time.monotonic()
            self._spare = min((now - self._spare_at) * _SPARE_PER_SECOND, _SPARE_FRAMES) - cost
            self._spare_at = now
            if self._spare < 0:
                raise GrpcError(Code.RESOURCE_EXHAUSTED, "too many frames without a message")

    def _count_data(self) -> None:
        self._spare = min(self._spare + _SPARE_PER_DATA, _SPARE_FRAMES)

    def _receive_data(self, frame: memoryview) -> None:
        flags = frame[4]
        id = int.from_bytes(frame[5:9]) & 0x7FFFFFFF
        size = len(frame) - _FRAME_HEADER
        if flags & ~_END_STREAM:
            raise h2.exceptions.ProtocolError("a padded DATA frame")
        self._window -= size
        if self._window < 0:
            raise h2.exceptions.FlowControlError("the window of the connection is exceeded")
        self._held += size
        self._unannounced += size
        stream = self.streams.get(id)
        complete = bool(flags)
        if stream is None or not stream.remote_open:
            self.consume(size)  # of a stream that we have closed
        else:
            stream.window -= size
            if stream.window < 0:
                raise h2.exceptions.FlowControlError("the window of a stream is exceeded")
            stream.held += size
            try:
                self._take(stream, size)
                complete |= stream.add(frame[_FRAME_HEADER:])
            except GrpcError as error:
                if self._accept is not None:
                    stream.refuse(error)  # its handler answers with the status
                else:
                    self._reset(id, h2.errors.ErrorCodes.CANCEL)
                    stream.fail(error)
            self.consume(0)
            if self.partial > self.limits.partial:
                raise GrpcError(Code.RESOURCE_EXHAUSTED, "too many incomplete messages")
        if size >= _FRAGMENT:
            self._count_data()
        elif not complete:
            self._count_spare()
        if flags & _END_STREAM:
            end = b"\0\0\0\0\x01" + bytes(frame[5:9])
            self._handle(self._h2.receive_data(end))

    def _take(self, stream: Stream, size: int) -> None:
        """Take the memory of a part of a request.

        :raises GrpcError: when the caller has used up its share.
        """
        if self.share is None or not size:
            return
        if not self.share.take(size):
            raise GrpcError(
                Code.RESOURCE_EXHAUSTED, "the requests of this client have too many bytes"
            )
        stream.taken += size

    def _handle(self, events: list[h2.events.Event]) -> None:
        for event in events:
            match event:
                case h2.events.RequestReceived():
                    self._open(event)
                case h2.events.ResponseReceived():
                    if (stream := self.streams.get(event.stream_id)) is not None:
                        stream.headers |= _decode(event.headers)
                        if "grpc-status" in stream.headers:
                            stream.status = _status(stream.headers)
                        elif stream.headers.get(":status") != "200":
                            stream.status = GrpcError(
                                Code.UNAVAILABLE,
                                f"the peer answered status {stream.headers.get(':status')}",
                            )
                case h2.events.TrailersReceived():
                    stream = self.streams.get(event.stream_id)
                    if stream is not None and self._accept is None:  # a client's mean nothing
                        stream.status = _status(_decode(event.headers))
                case h2.events.StreamEnded():
                    if (stream := self.streams.get(event.stream_id)) is not None:
                        stream.finish()
                case h2.events.StreamReset():
                    self._note_reset()
                    stream = self.streams.get(event.stream_id)
                    if stream is not None and stream.status is not None:
                        stream.finish()  # the call has ended with a status; we sent more
                    elif stream is not None:
                        stream.fail(_reset_error(event.error_code))
                case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                    for stream in self.streams.values():
                        stream.wake()
                case h2.events.ConnectionTerminated():
                    self._fail(ConnectionLost())

    def _open(self, event: h2.events.RequestReceived) -> None:
        assert self._accept is not None
        id = event.stream_id
        if self.refusing or len(self.streams) >= self.limits.streams:
            self._reset(id, h2.errors.ErrorCodes.REFUSED_STREAM)
            self._note_reset()
            return
        stream = self.streams[id] = Stream(self, id)
        stream.headers = _decode(event.headers)
        self._accept(stream)

    def _note_reset(self) -> None:
        now = time.monotonic()
        if len(self._resets) == _RESETS and now - self._resets[0] < _RESET_SECONDS:
            raise GrpcError(Code.RESOURCE_EXHAUSTED, "too many calls were reset")
        self._resets.append(now)

    # -- called by streams -----------------------------------------------------------------------

    def consume(self, size: int) -> None:
        """Note that ``size`` bytes are not held any more; extend the window if few are held."""
        self._held -= size
        if self._held <= self.limits.held and self._unannounced >= self.limits.window // 4:
            self._window += self._unannounced
            self._put_window(0, self._unannounced)
            self._unannounced = 0

    def extend_window(self, stream: Stream, size: int) -> None:
        """Allow the peer to send ``size`` more bytes on a stream."""
        if size > 0 and stream.remote_open:
            stream.window += size
            self._put_window(stream.id, size)

    def _put_window(self, id: int, size: int) -> None:
        if self._error is None:
            self._flush()
            self._put(struct.pack("!BHBBII", 0, 4, _WINDOW_UPDATE, 0, id, size))

    def room(self, id: int) -> int:
        """Return how many bytes of a stream can be sent now."""
        try:
            return min(self._h2.local_flow_control_window(id), self._h2.max_outbound_frame_size)
        except h2.exceptions.ProtocolError:
            raise ConnectionLost("the call has ended") from None

    def send_headers(self, id: int, headers: Headers, *, end: bool = False) -> None:
        """Send headers or trailers.

        :raises GrpcError: when the stream has ended or the connection is lost.
        """
        self._try(lambda: self._h2.send_headers(id, headers, end_stream=end))

    def send_data(self, id: int, data: bytes) -> None:
        """Send payload for which there is room.

        :raises GrpcError: when the stream has ended or the connection is lost.
        """
        self._count_data()
        self._try(lambda: self._h2.send_data(id, data))

    def end_stream(self, id: int) -> None:
        """End our side of a stream; nothing if it has ended."""
        try:
            self._try(lambda: self._h2.end_stream(id))
        except GrpcError:
            return

    def open_stream(self, headers: Headers) -> Stream:
        """Begin a call.

        :raises GrpcError: when the connection is lost.
        """
        if self._error is not None:
            raise self._error
        id = self._h2.get_next_available_stream_id()
        self.send_headers(id, headers)
        stream = self.streams[id] = Stream(self, id)
        return stream

    def close_stream(self, stream: Stream) -> None:
        """Forget a stream, and reset it if a side is open still."""
        if self.streams.pop(stream.id, None) is None:
            return
        stream.task = None  # it may be the caller
        if self.share is not None and stream.taken:
            self.share.give_back(stream.taken)
            stream.taken = 0
        stream.fail(GrpcError(Code.CANCELLED, "the call has ended"))
        self.consume(stream.held)
        stream.held = 0
        codes = h2.errors.ErrorCodes
        self._reset(stream.id, codes.CANCEL if self._accept is None else codes.NO_ERROR)

    async def drain(self) -> None:
        """Wait until the peer has read enough. One that reads nothing for a while is disconnected.

        :raises GrpcError: when the connection is lost.
        """
        while not self._drained.is_set():
            before = self._written
            try:
                async with asyncio.timeout(self.limits.stall):
                    await self._drained.wait()
            except TimeoutError:
                if self._written == before:
                    self._fail(ConnectionLost("the peer does not read its answers"))
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the connection; every call on it fails."""
        if self._error is None:
            try:
                self._h2.close_connection()
                self._flush()
            except h2.exceptions.ProtocolError:
                pass  # the peer has ended it already
        self._fail(self._error or ConnectionLost())

    def _fail(self, error: GrpcError) -> None:
        self._error = self._error or error
        self.closed.set()
        self._drained.set()
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
        for stream in tuple(self.streams.values()):
            stream.fail(self._error)

    def _reset(self, id: int, code: h2.errors.ErrorCodes) -> None:
        try:
            self._h2.reset_stream(id, code)
        except h2.exceptions.ProtocolError:
            return  # both sides have ended it
        self._flush()

    def _try(self, action: Callable[[], None]) -> None:
        if self._error is not None:
            raise self._error
        try:
            action()
        except h2.exceptions.ProtocolError as error:
            raise GrpcError(Code.CANCELLED, f"the call has ended: {error}") from None
        self._flush()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._put(data)

    def _put(self, data: bytes) -> None:
        self._out += data
        self._unsent += len(data)
        self._writable.set()
        if self._unsent >= HIGH_WATER:
            self._drained.clear()


def _reset_error(code: int | None) -> GrpcError:
    name = getattr(code, "name", str(code))
    return GrpcError(Code.CANCELLED, f"the peer has reset the call ({name})")


def _decode(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers as a dictionary; of repeated ones the last, for which gRPC has no use."""
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in headers
    }


def _status(trailers: dict[str, str]) -> GrpcError:
    code = parse_code(trailers.get("grpc-status", ""))
    return GrpcError(code, decode_message(trailers.get("grpc-message", "")))
