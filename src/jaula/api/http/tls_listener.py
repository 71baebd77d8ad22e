"""The way in from the network: TCP clients that prove by a certificate who they are.

A client that was let in gets one end of a pair of sockets; the engine carries the bytes between
that and TLS, for whole answers and hijacked streams alike. So everything behind this module sees a
plain socket, which may be handed to a shim as any other. Nothing waits here but one piece a way.

Whoever is slow with the handshake, or sends nothing at all, has a few seconds. When too many are
at it, of one address or in all, the one that has been longest at it is dropped: an honest client
needs milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from ssl import SSLContext

from jaula import tls
from jaula.api.http import peer
from jaula.api.http.socket_pump import SocketPump
from jaula.spec.api_params import Remote
from jaula.tasks import BackgroundTasks
from jaula.tls import TlsCodec, TlsError

HANDSHAKE_SECONDS = 10.0
MOST_SHAKING, MOST_OF_ONE = 256, 32  # clients in their handshake: in all, and of one address
MOST_INSIDE = 1024
_FAREWELL_SECONDS = 2.0
_QUIET_SECONDS = 5.0  # between two lines of the log about clients that were not let in
_NO_DESCRIPTORS_PAUSE = 1.0  # seconds
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
"""Go's answer (net/http), which Docker's clients show."""

Adopt = Callable[[socket.socket, Remote], Awaitable[None]]

_log = logging.getLogger("jaula.api")


class TlsListener:
    """One listening socket. ``context`` may be replaced: it is for the clients that follow."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        context: SSLContext,
        adopt: Adopt,
    ) -> None:
        self.context = context
        self._loop = loop
        self._sock = sock
        self._adopt = adopt
        self._shaking: dict[asyncio.Task[None], str] = {}  # oldest first, with its address
        self._tasks = BackgroundTasks(_log, "a client from the network failed")
        self._unsaid = 0  # clients that were not let in, of which the log says nothing yet
        self._quiet_until = 0.0
        self._accepting = loop.create_task(self._accept())

    async def _accept(self) -> None:
        while True:
            try:
                client, address = await self._loop.sock_accept(self._sock)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                _log.warning("cannot accept on %s: %s", self._sock.getsockname(), error)
                await asyncio.sleep(_NO_DESCRIPTORS_PAUSE)
                continue
            if len(self._tasks) - len(self._shaking) >= MOST_INSIDE:
                client.close()
                continue
            self._make_room(address[0])
            task = self._tasks.spawn(self._serve(client))
            self._shaking[task] = address[0]
            task.add_done_callback(lambda task: self._shaking.pop(task, None))

    def _make_room(self, address: str) -> None:
        same = [task for task, of in self._shaking.items() if of == address]
        if len(same) >= MOST_OF_ONE:
            same[0].cancel()
        elif len(self._shaking) >= MOST_SHAKING:
            next(iter(self._shaking)).cancel()

    async def _serve(self, client: socket.socket) -> None:
        """From the handshake to the end of the connection."""
        task = asyncio.current_task()
        assert task is not None
        with client:
            try:
                for level, option, value in _KEEPALIVE:
                    client.setsockopt(level, option, value)
                origin = Remote(peer.address_of(client))
                codec = TlsCodec(self.context, server=True)
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    await self._shake(client, codec)
            except TlsError as error:
                self._refused(origin, error)
                return
            except TimeoutError:
                return
            except OSError:
                return  # it is gone
            finally:
                self._shaking.pop(task, None)
            origin = peer.certified(origin.address, codec.subject, codec.certificate)
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

    def _refused(self, origin: Remote, error: TlsError) -> None:
        """Say so, but not as often as somebody might like to fill the log."""
        self._unsaid += 1
        now = self._loop.time()
        if now < self._quiet_until:
            return
        more = f" ({self._unsaid - 1} others before)" if self._unsaid > 1 else ""
        _log.info("client %s was not let in: %s%s", origin.address, error, more)
        self._unsaid, self._quiet_until = 0, now + _QUIET_SECONDS

    async def _shake(self, client: socket.socket, codec: TlsCodec) -> None:
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
                    await self._let_read(client)
                raise
            if answer := codec.outgoing():
                await self._loop.sock_sendall(client, answer)

    async def _let_read(self, client: socket.socket) -> None:
        """Close gently: a socket that is closed with unread bytes takes back what was sent."""
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                while await self._loop.sock_recv(client, tls.CHUNK_SIZE):
                    pass

    def stop(self) -> None:
        """Let nobody in any more."""
        self._accepting.cancel()
        for task in tuple(self._shaking):
            task.cancel()

    async def close(self) -> None:
        """End what is left of connections, once what was behind them has ended."""
        await asyncio.wait((self._accepting,))
        self._sock.close()  # not before: its number could be another's while it is waited for
        await self._tasks.finish(_FAREWELL_SECONDS)
