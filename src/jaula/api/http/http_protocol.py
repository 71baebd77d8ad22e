"""One client connection: its peer, and bytes to parsed events with backpressure in both directions.

h11 parses and frames (RFC 9112). This module adds what h11 leaves open: flow control, limits,
deadlines and the client that goes away. :mod:`jaula.api.http.http_session` handles the requests.

The work of a route is not interrupted until the route has answered: a container is not left
half-started because a client pressed ^C. Work that changes nothing, or that is undone when it
fails, asks whether its client is gone (:meth:`HttpProtocol.is_gone`) and ends then. A stream is
cancelled as soon as its reader is gone.

Facts about closed peers: on a unix socket, end of file also comes from a client that has finished
its input (``shutdown``) and still reads the answer. Only ``POLLHUP`` means that it is gone. asyncio
stops polling a socket after end of file, so the server checks such connections regularly. On TCP
the two cases cannot be distinguished: end of file during a stream ends it.
"""

from __future__ import annotations

import asyncio
import enum
import select
import socket
from collections.abc import AsyncIterator, Coroutine, Iterable
from math import inf
from typing import Any, Protocol

import h11

from jaula.api.http.http_errors import BadHeader, Disconnected, TooSlow
from jaula.engine.authz.peer import peer_process
from jaula.sha256 import sha256
from jaula.spec.api_params import ContainerPeer, Origin, Remote

MAX_HEAD = 64 * 1024  # bytes of a request line and its headers
HIGH_WATER = 256 * 1024  # bytes of unsent output, or of a body that is read, that pause the sender
MAX_UNREAD = 64 * 1024  # bytes of input that no route reads
MAX_DISCARD = 256 * 1024 * 1024  # bytes of an unread body that are skipped

IDLE_SECONDS = 300.0
HEAD_SECONDS = 30.0
BODY_SECONDS = 60.0  # without a byte of the body, while the engine waits for one
DISCARD_SECONDS = 5.0

FINGERPRINT = "sha256:"
_MAX_COMMON_NAME = 64  # characters: RFC 5280, appendix A.1, ub-common-name


def _whole_answer(status: str, message: str) -> bytes:
    """Return an answer that ends the connection, for a client whose request is not read."""
    body = b'{"message":"%b"}\n' % message.encode()
    return (
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)
    )


STOPPING = _whole_answer("503 Service Unavailable", "the engine is stopping")
BUSY = _whole_answer("503 Service Unavailable", "too many connections are open")
DENIED = _whole_answer("403 Forbidden", "the policy does not allow this client to use the engine")


Subject = Iterable[Iterable[tuple[str, str]]]
"""The subject of a certificate, in the form of the ssl module."""


class Phase(enum.Enum):
    """The state of a connection."""

    IDLE = enum.auto()  # between requests
    HEAD = enum.auto()  # the head of a request has begun
    WORK = enum.auto()  # a route runs, or its whole answer is written
    STREAM = enum.auto()  # an answer of many chunks is written
    GONE = enum.auto()  # lost, or handed over


_received = memoryview(bytearray(HIGH_WATER))  # of one connection at a time, until it is parsed


class ProtocolOwner(Protocol):
    """The server, as a connection sees it."""

    loop: asyncio.AbstractEventLoop

    def admit(self, connection: HttpProtocol) -> Coroutine[Any, Any, None] | bytes:
        """Return what serves a new connection, or the whole answer to one that is refused."""

    def forget(self, connection: HttpProtocol) -> None:
        """Remove a lost connection."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the task of the connection and keep a reference to it."""


class HttpProtocol(asyncio.BufferedProtocol):
    """The asyncio protocol of a connection.

    Input that no route reads is limited to ``MAX_UNREAD``, twice at most, so many connections do
    not take much memory.

    ``origin`` is set if the kernel would name another peer: the engine itself on one end of a pair
    that is forwarded to the client, or a process of the container that is the client.
    """

    def __init__(
        self,
        owner: ProtocolOwner,
        origin: Remote | ContainerPeer | None = None,
    ) -> None:
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self.transport: asyncio.Transport
        self.loop = owner.loop
        self.peer: Origin | None = origin
        self.phase = Phase.IDLE
        self.last = False  # no request follows the current one
        self.cancel_at_finish = False  # the task serves the client itself, on its socket
        self.head_end = inf  # time of the loop at which even the first head must be complete
        self._owner = owner
        self._task: asyncio.Task[None]
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._unread = 0  # bytes passed to the parser since it last needed more
        self._paused = False
        self._write_paused = False
        self._eof = False
        self._unix = False
        self._deadline = self.loop.time() + IDLE_SECONDS  # inf without one

    # -- callbacks of asyncio -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        sock: socket.socket = transport.get_extra_info("socket")
        self._unix = sock.family == socket.AF_UNIX
        if self.peer is None:
            try:
                self.peer = peer_of(sock)
            except OSError:
                self.phase = Phase.GONE
                transport.abort()  # it has left already
                return
        session = self._owner.admit(self)
        if isinstance(session, bytes):
            self.phase = Phase.GONE
            transport.write(session)
            transport.close()
            return
        self._task = self._owner.spawn(session)

    def _limit(self) -> int:
        """Return how many bytes of input are read at once, and may be unread, in bytes."""
        body = self._readable is not None and self.phase not in (Phase.IDLE, Phase.HEAD)
        return HIGH_WATER if body else MAX_UNREAD

    def get_buffer(self, sizehint: int) -> memoryview:
        return _received[: self._limit()]

    def buffer_updated(self, nbytes: int) -> None:
        if self.phase is Phase.GONE:
            return
        self.parser.receive_data(bytes(_received[:nbytes]))
        self._unread += nbytes
        if self.phase is Phase.IDLE:
            self.phase = Phase.HEAD
            self._deadline = self.loop.time() + HEAD_SECONDS
        elif self._deadline != inf and self.phase is not Phase.HEAD:
            self._deadline = self.loop.time() + BODY_SECONDS
        if self._unread > self._limit():
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

    # -- called by the server -------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Enforce the deadline, and end a stream whose half-closed reader is gone."""
        if self.phase is Phase.STREAM and (self._eof or self._paused):
            self._end_if_gone()
        elif now > min(self._deadline, self.head_end):
            if self.phase is Phase.IDLE:
                self.transport.abort()
            elif self._readable is not None and not self._readable.done():
                self._readable.set_exception(TooSlow("time-out waiting for the whole request"))

    def finish(self) -> None:
        """Close with the server: end an idle connection or a stream now, a route at its end.

        A client that has begun a request is answered that the engine stops.
        """
        self.last = True
        if self.phase is Phase.HEAD:
            self.transport.write(STOPPING)
            self.transport.close()
        elif self.phase in (Phase.IDLE, Phase.STREAM):
            self.transport.abort()
        elif self.cancel_at_finish:
            self._task.cancel()

    # -- states of a request ----------------------------------------------------------------------

    def begin_work(self) -> None:
        """Enter WORK after a whole head: no deadline until the body is read."""
        self.phase, self._deadline = Phase.WORK, inf

    def begin_stream(self) -> None:
        """Enter STREAM: the task is cancelled when the client leaves, or if it has left already."""
        if self.phase is not Phase.GONE:
            self.phase = Phase.STREAM
            if self._eof:
                self._end_if_gone()

    def end_stream(self) -> None:
        """Return to WORK: the clean-up of a stream is not interrupted."""
        if self.phase is Phase.STREAM:
            self.phase = Phase.WORK

    def next_request(self) -> None:
        """Wait for the next request, whose head may have begun already."""
        self.parser.start_next_cycle()
        begun = bool(self.parser.trailing_data[0])
        self.phase = Phase.HEAD if begun else Phase.IDLE
        self._deadline = self.loop.time() + (HEAD_SECONDS if begun else IDLE_SECONDS)

    def is_gone(self) -> bool:
        """Return whether the client does not read an answer any more. Call it in any thread."""
        if self.phase is Phase.GONE or not self._eof:
            return self.phase is Phase.GONE
        return self._is_closed()

    def _is_closed(self) -> bool:
        poll = select.poll()
        try:
            poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        except ValueError:
            return True  # closed at this moment
        return not self._unix or bool(poll.poll(0))  # POLLHUP and POLLERR are always reported

    def _end_if_gone(self) -> None:
        if self._is_closed():
            self.transport.abort()

    # -- reading --------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    def pause_reading(self) -> None:
        """Stop reading; further input stays in the kernel."""
        if not self._paused and not self._eof:
            self._paused = True
            self.transport.pause_reading()

    async def event(self) -> object:
        """Return the next event of the parser; wait for input if needed.

        :raises Disconnected: when the client is gone.
        :raises TooSlow: when the deadline has passed.
        """
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
        """Yield the body of the request in the chunks in which it arrives.

        :raises BadHeader: when the framing of the body is invalid.
        :raises Disconnected: when the client is gone.
        :raises TooSlow: when no byte arrives for ``BODY_SECONDS``.
        """
        if self.parser.their_state is not h11.SEND_BODY:
            return
        if self.parser.they_are_waiting_for_100_continue:
            self.write(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while True:
            self._deadline = self.loop.time() + BODY_SECONDS
            try:
                event = await self.event()
            except h11.RemoteProtocolError as error:
                if self._eof:
                    raise Disconnected from None
                raise BadHeader(f"bad body: {error}", error.error_status_hint) from None
            finally:
                self._deadline = inf
            if not isinstance(event, h11.Data):
                return
            yield bytes(event.data)

    async def discard(self) -> bool:
        """Skip the rest of the body; return False if it is too large or too slow."""
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
        """Send events in one write.

        :raises Disconnected: when the client is gone.
        """
        if self.phase is Phase.GONE:
            raise Disconnected
        data = b"".join([self.parser.send(event) or b"" for event in events])
        if data:
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough of the output.

        :raises Disconnected: when the client is gone.
        """
        if self.phase is Phase.GONE:
            raise Disconnected
        if self._write_paused:
            self._writable = self.loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None


# -- the peer ----------------------------------------------------------------------------------


def peer_of(sock: socket.socket) -> Origin:
    """Return the peer of a connected socket.

    :raises OSError: when it is not connected any more.
    """
    return peer_process(sock) if sock.family == socket.AF_UNIX else Remote(peer_address(sock))


def certified_peer(address: str, subject: Subject, certificate: bytes) -> Remote:
    """Return the client with this verified certificate (DER).

    It has no name if the subject has several common names, or one that is not printable, too long
    or similar to a fingerprint.
    """
    names = [value for part in subject for key, value in part if key == "commonName"]
    name = names[0] if len(names) == 1 else ""
    if not name.isprintable() or len(name) > _MAX_COMMON_NAME or name.startswith(FINGERPRINT):
        name = ""
    return Remote(address, name, FINGERPRINT + sha256(certificate).hexdigest())


def peer_address(sock: socket.socket) -> str:
    """Return ``host:port`` of a TCP peer."""
    host, port = sock.getpeername()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
