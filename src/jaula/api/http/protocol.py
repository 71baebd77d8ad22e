"""One client connection: bytes in, parsed events out, with backpressure both ways.

Parsing and framing are h11's (RFC 9112); this module owns what h11 leaves open: flow control,
ceilings, deadlines and the client that goes away. What is said on the connection is
:mod:`jaula.api.http.session`'s.

Until a route has answered, its work is not interrupted: a container that is being started is not
left half-started because a client pressed ^C. A stream is different: it is cancelled as soon as
its reader is gone.

Facts about closed peers: on a unix socket, end of file is also what a client sends that has
finished its input (``shutdown``) and still reads the answer; only ``POLLHUP`` tells that it is
gone. asyncio stops polling a socket after end of file, so such connections are looked at by the
server's regular sweep. On TCP the two cannot be told apart; end of file during a stream ends it.
"""

from __future__ import annotations

import asyncio
import enum
import select
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from math import inf
from typing import Any, Protocol

import h11

from jaula.api.http import peer
from jaula.api.http.errors import BadHeader, Disconnected, TooSlow
from jaula.spec.api_params import Origin, Remote

MAX_HEAD = 64 * 1024  # bytes of a request line and its headers
HIGH_WATER = 256 * 1024  # bytes of unread input, or unsent output, that stop the other side
MAX_DISCARD = 256 * 1024 * 1024  # bytes of an unread body that are skipped, for DISCARD_SECONDS

IDLE_SECONDS = 300.0
HEAD_SECONDS = 30.0
BODY_SECONDS = 60.0  # without a byte of the body, while the engine waits for one
DISCARD_SECONDS = 5.0

_BUSY_BODY = b'{"message":"too many connections are open"}\n'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_BUSY_BODY), _BUSY_BODY)
)


class Phase(enum.Enum):
    """Where the connection is in its life."""

    IDLE = enum.auto()  # between requests
    HEAD = enum.auto()  # a request's head has begun
    WORK = enum.auto()  # a route works, or its whole answer is written
    STREAM = enum.auto()  # an answer of many chunks is written
    GONE = enum.auto()  # lost, or given away


class ProtocolOwner(Protocol):
    """The server, as a connection sees it."""

    loop: asyncio.AbstractEventLoop

    def admit(self, connection: HttpProtocol) -> bool:
        """Count a new connection; False refuses it."""

    def forget(self, connection: HttpProtocol) -> None:
        """The connection is lost."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the connection's task and hold it."""


class HttpProtocol(asyncio.Protocol):
    """The protocol object of a connection; ``converse`` makes the task that serves it.

    ``origin`` is given where the socket is not the client's own but one of ours that leads to it:
    what the kernel says about that one's peer would be about this engine.
    """

    def __init__(
        self,
        owner: ProtocolOwner,
        converse: Callable[[HttpProtocol], Coroutine[Any, Any, None]],
        origin: Remote | None = None,
    ) -> None:
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self.transport: asyncio.Transport
        self.loop = owner.loop
        self.peer: Origin | None = origin
        self.phase = Phase.IDLE
        self.last = False  # no request after the present one
        self._owner = owner
        self._converse = converse
        self._task: asyncio.Task[None]
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._unread = 0  # bytes given to the parser since it last asked for more
        self._paused = False
        self._write_paused = False
        self._eof = False
        self._unix = False
        self._deadline = self.loop.time() + IDLE_SECONDS  # inf where there is none

    # -- what asyncio calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        sock: socket.socket = transport.get_extra_info("socket")
        self._unix = sock.family == socket.AF_UNIX
        if not self._owner.admit(self):
            transport.write(_BUSY)
            transport.close()
            self.phase = Phase.GONE
            return
        if self.peer is None:
            try:
                self.peer = peer.of(sock)
            except OSError:
                transport.abort()  # it has left already
        self._task = self._owner.spawn(self._converse(self))

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.GONE:
            return
        self.parser.receive_data(data)
        self._unread += len(data)
        if self.phase is Phase.IDLE:
            self.phase = Phase.HEAD
            self._deadline = self.loop.time() + HEAD_SECONDS
        elif self._deadline != inf and self.phase is not Phase.HEAD:
            self._deadline = self.loop.time() + BODY_SECONDS
        if self._unread > HIGH_WATER:
            self.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        if self.phase is Phase.GONE:
            return False
        self._eof = True
        self.parser.receive_data(b"")
        self._wake()
        if self.phase is Phase.STREAM:
            self._end_if_gone()
        return True

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        streaming = self.phase is Phase.STREAM
        self.phase = Phase.GONE
        self._owner.forget(self)
        for waiter in (self._readable, self._writable):
            if waiter is not None and not waiter.done():
                waiter.set_exception(Disconnected())
        if streaming:
            self._task.cancel()

    # -- what the server calls ------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Enforce the deadline, and end a stream whose half-closed reader is gone."""
        if self.phase is Phase.STREAM and (self._eof or self._paused):
            self._end_if_gone()
        elif now > self._deadline:
            if self.phase is Phase.IDLE:
                self.transport.abort()
            elif self._readable is not None and not self._readable.done():
                self._readable.set_exception(TooSlow("time-out waiting for the whole request"))

    def finish(self) -> None:
        """The server closes: idle connections and streams end now, a route's work ends first."""
        self.last = True
        if self.phase in (Phase.IDLE, Phase.HEAD, Phase.STREAM):
            self.transport.abort()

    # -- the life of a request --------------------------------------------------------------------

    def working(self) -> None:
        """A whole head was read: no deadline until its body is wanted."""
        self.phase, self._deadline = Phase.WORK, inf

    def streaming(self) -> None:
        """From now on the task is cancelled when the client goes (it may be gone already)."""
        if self.phase is not Phase.GONE:
            self.phase = Phase.STREAM
            if self._eof:
                self._end_if_gone()

    def settled(self) -> None:
        """The stream has ended; its clean-up is not interrupted."""
        if self.phase is Phase.STREAM:
            self.phase = Phase.WORK

    def next_request(self) -> None:
        """The exchange is complete; wait for another one, whose head may have begun already."""
        self.parser.start_next_cycle()
        begun = bool(self.parser.trailing_data[0])
        self.phase = Phase.HEAD if begun else Phase.IDLE
        self._deadline = self.loop.time() + (HEAD_SECONDS if begun else IDLE_SECONDS)

    def _end_if_gone(self) -> None:
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        if not self._unix or poll.poll(0):  # POLLHUP and POLLERR are reported unasked
            self.transport.abort()

    # -- reading --------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    def pause_reading(self) -> None:
        """Leave further input in the kernel."""
        if not self._paused and not self._eof:
            self._paused = True
            self.transport.pause_reading()

    async def event(self) -> object:
        """The parser's next event; waits for input as needed."""
        while True:
            event = self.parser.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self.phase is Phase.GONE:
                raise Disconnected
            self._unread = 0
            self._readable = self.loop.create_future()
            if self._paused and not self._eof:
                self._paused = False
                self.transport.resume_reading()
            try:
                await self._readable
            finally:
                self._readable = None

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body in the pieces in which it arrives; raises Disconnected, TooSlow."""
        if self.parser.their_state is not h11.SEND_BODY:
            return
        if self.parser.they_are_waiting_for_100_continue:
            self.write(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while True:
            self._deadline = self.loop.time() + BODY_SECONDS
            try:
                event = await self.event()
            except h11.RemoteProtocolError as problem:
                if self._eof:
                    raise Disconnected from None
                raise BadHeader(f"bad body: {problem}", problem.error_status_hint) from None
            finally:
                self._deadline = inf
            if not isinstance(event, h11.Data):
                return
            yield bytes(event.data)

    async def discard(self) -> bool:
        """Skip what is left of the request's body; False where that is too much or too slow."""
        skipped = 0
        end = self.loop.time() + DISCARD_SECONDS
        try:
            while self.parser.their_state is h11.SEND_BODY:
                self._deadline = end
                event = await self.event()
                skipped += len(event.data) if isinstance(event, h11.Data) else 0
                if skipped > MAX_DISCARD or self.loop.time() > end:
                    return False
        except (h11.RemoteProtocolError, TooSlow):
            return False
        finally:
            self._deadline = inf
        return self.parser.their_state is not h11.ERROR

    # -- writing --------------------------------------------------------------------------------

    def write(self, *events: h11.Event) -> None:
        """Send events in one piece; raises Disconnected where nobody is left to read."""
        if self.phase is Phase.GONE:
            raise Disconnected
        data = b"".join([self.parser.send(event) or b"" for event in events])
        if data:
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough for more to be sent."""
        if self.phase is Phase.GONE:
            raise Disconnected
        if self._write_paused:
            self._writable = self.loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None
