"""The TLS listener: TCP clients that authenticate with a certificate.

After the handshake the connection is served on one end of a socket pair. The engine forwards the
bytes between the other end and TLS, for whole answers and hijacked streams alike. So the rest of
the engine sees a plain socket, which can be passed to a shim like any other. At most one chunk is
buffered in each direction.

A client that has selected a protocol of ``streams`` by ALPN does not speak HTTP: its connection is
passed on as it is.

A handshake may take a few seconds. If too many handshakes are in progress, from one address or in
total, the oldest one is dropped: an honest client needs milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from ssl import SSLContext

from jaula import tls
from jaula.api.http.http_protocol import certified_peer, peer_address
from jaula.api.http.socket_pump import SocketPump
from jaula.spec.api_params import Remote
from jaula.tasks import BackgroundTasks
from jaula.tls import TlsCodec, TlsError

HANDSHAKE_SECONDS = 10.0
MAX_HANDSHAKES, MAX_HANDSHAKES_PER_ADDRESS = 256, 32  # in progress
MAX_CLIENTS = 1024  # after their handshake
_CLOSE_SECONDS = 2.0
_LOG_INTERVAL = 5.0  # seconds between two log lines about rejected clients
_ACCEPT_RETRY_SECONDS = 1.0
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
_PLAIN = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)
"""The answer of Go's net/http, which Docker's clients print."""

Adopt = Callable[[socket.socket, Remote], Awaitable[None]]
ServeStream = Callable[[socket.socket, TlsCodec, Remote], Awaitable[None]]
"""Serves a connection of another protocol to its end. The listener closes the socket."""

_log = logging.getLogger("jaula.api")


class TlsListener:
    """One listening socket. ``context`` may be replaced; it applies to new connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        context: SSLContext,
        adopt: Adopt,
        streams: Mapping[str, ServeStream],
    ) -> None:
        self.context = context
        self._streams = streams
        self._loop = loop
        self._sock = sock
        self._adopt = adopt
        self._handshakes: dict[asyncio.Task[None], str] = {}  # oldest first, with the address
        self._tasks = BackgroundTasks(_log, "a TLS client failed")
        self._unlogged = 0  # rejected clients since the last log line
        self._next_log = 0.0
        self._accepting = loop.create_task(self._accept())

    async def _accept(self) -> None:
        while True:
            try:
                client, address = await self._loop.sock_accept(self._sock)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                _log.warning("cannot accept on %s: %s", self._sock.getsockname(), error)
                await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
                continue
            if len(self._tasks) - len(self._handshakes) >= MAX_CLIENTS:
                client.close()
                continue
            self._make_room(address[0])
            task = self._tasks.spawn(self._serve(client))
            self._handshakes[task] = address[0]
            task.add_done_callback(lambda task: self._handshakes.pop(task, None))

    def _make_room(self, address: str) -> None:
        same = [task for task, other in self._handshakes.items() if other == address]
        if len(same) >= MAX_HANDSHAKES_PER_ADDRESS:
            same[0].cancel()
        elif len(self._handshakes) >= MAX_HANDSHAKES:
            next(iter(self._handshakes)).cancel()

    async def _serve(self, client: socket.socket) -> None:
        """Serve a client from the handshake to the end of its connection."""
        task = asyncio.current_task()
        assert task is not None
        with client:
            try:
                for level, option, value in _KEEPALIVE:
                    client.setsockopt(level, option, value)
                origin = Remote(peer_address(client))
                codec = TlsCodec(self.context, server=True)
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    await self._handshake(client, codec)
            except TlsError as error:
                self._log_rejected(origin, error)
                return
            except TimeoutError:
                return
            except OSError:
                return  # the client is gone
            finally:
                self._handshakes.pop(task, None)
            origin = certified_peer(origin.address, codec.subject, codec.certificate)
            if (serve := self._streams.get(codec.protocol)) is not None:
                await serve(client, codec, origin)
                return
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            with ours:
                try:
                    await self._adopt(theirs, origin)
                except BaseException:
                    theirs.close()
                    raise
                await SocketPump(client, codec, ours).run()

    def _log_rejected(self, origin: Remote, error: TlsError) -> None:
        """Log a rejected client, at a limited rate: a client must not be able to fill the log."""
        self._unlogged += 1
        now = self._loop.time()
        if now < self._next_log:
            return
        more = f" (and {self._unlogged - 1} before)" if self._unlogged > 1 else ""
        _log.info("client %s was rejected: %s%s", origin.address, error, more)
        self._unlogged, self._next_log = 0, now + _LOG_INTERVAL

    async def _handshake(self, client: socket.socket, codec: TlsCodec) -> None:
        done = False
        while not done:
            data = await self._loop.sock_recv(client, tls.CHUNK_SIZE)
            codec.feed(data)
            try:
                done = codec.do_handshake()
            except TlsError as error:
                last = _PLAIN if error.plain else codec.outgoing()
                await self._loop.sock_sendall(client, last)
                if data:
                    await self._close_gracefully(client)
                raise
            if answer := codec.outgoing():
                await self._loop.sock_sendall(client, answer)

    async def _close_gracefully(self, client: socket.socket) -> None:
        """Close after the client has read the answer; a close with unread input would reset it."""
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                while await self._loop.sock_recv(client, tls.CHUNK_SIZE):
                    pass

    def stop(self) -> None:
        """Stop accepting, and end handshakes."""
        self._accepting.cancel()
        for task in tuple(self._handshakes):
            task.cancel()

    async def close(self) -> None:
        """End the remaining connections, after the server has ended its sessions."""
        await asyncio.wait((self._accepting,))
        self._sock.close()  # not earlier: the accept may still wait for its number
        await self._tasks.finish(_CLOSE_SECONDS)
