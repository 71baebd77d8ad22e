"""Listening sockets, the connections that came through them, and their end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from jaula.api.backend import Backend
from jaula.api.http.protocol import HttpProtocol
from jaula.api.http.session import HttpSession
from jaula.api.router import Router
from jaula.api.routes import ROUTES
from jaula.spec.api_params import Origin, Remote
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from ssl import SSLContext

    from jaula.api.http.tls_listener import TlsListener

MAX_CONNECTIONS = 1024
BACKLOG = 512
SWEEP_SECONDS = 5.0
GRACE_SECONDS = 5.0  # for routes that work when the server closes

Enter = Callable[[Origin | None], Backend]
"""The engine as it is for the one at the other end of a connection."""

_log = logging.getLogger("jaula.api")


class Server:
    """A running API server. It holds every task that it started until the task has ended."""

    def __init__(self, enter: Enter, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self.loop = asyncio.get_running_loop()
        self._enter = enter
        self._router = Router(ROUTES)
        self._max_connections = max_connections
        self._connections: set[HttpProtocol] = set()
        self._tasks = BackgroundTasks(_log, "a connection failed")
        self._listeners: list[asyncio.Server] = []
        self._entrances: list[TlsListener] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False

    async def listen(self, sock: socket.socket) -> None:
        """Accept on a bound stream socket; the server owns it from now on.

        Who comes by TCP is nobody that the kernel could name.
        """
        listener = await self.loop.create_server(
            lambda: HttpProtocol(self, self._converse), sock=sock, backlog=BACKLOG
        )
        self._listeners.append(listener)

    async def listen_secured(self, sock: socket.socket, context: SSLContext) -> TlsListener:
        """Accept clients that prove who they are on a bound TCP socket; it is the server's now.

        The answer takes a new context when certificates change.
        """
        from jaula.api.http.tls_listener import TlsListener as TlsListenerTlsListener

        entrance = TlsListenerTlsListener(self.loop, sock, context, self._adopt)
        self._entrances.append(entrance)
        return entrance

    async def _adopt(self, sock: socket.socket, origin: Remote) -> None:
        """Serve on one end of a pair of sockets, whose other one leads to ``origin``."""
        await self.loop.connect_accepted_socket(
            lambda: HttpProtocol(self, self._converse, origin), sock
        )

    async def _converse(self, connection: HttpProtocol) -> None:
        await HttpSession(connection, self._router, self._enter(connection.peer)).run()

    async def close(self) -> None:
        """Stop accepting, end idle connections and streams, let routes finish within the grace.

        The path of a unix socket is left to its maker.
        """
        self._closing = True
        for listener in self._listeners:
            listener.close()
        for entrance in self._entrances:
            entrance.stop()
        for connection in tuple(self._connections):
            connection.finish()
        await self._tasks.finish(GRACE_SECONDS)
        for entrance in self._entrances:
            await entrance.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # -- what a connection calls (see connection.Owner) -------------------------------------------

    def admit(self, connection: HttpProtocol) -> bool:
        """Count a new connection; False where there are too many or the server closes."""
        if self._closing or len(self._connections) >= self._max_connections:
            return False
        self._connections.add(connection)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)
        return True

    def forget(self, connection: HttpProtocol) -> None:
        self._connections.discard(connection)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` and log a failure."""
        return self._tasks.spawn(work)

    def _sweep(self) -> None:
        """Deadlines; the timer runs only while there are connections."""
        self._sweeper = None
        now = self.loop.time()
        for connection in tuple(self._connections):
            connection.sweep(now)
        if self._connections:
            self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)


async def serve(enter: Enter, sockets: Sequence[socket.socket]) -> Server:
    """Serve the API on bound stream sockets until :meth:`Server.close`."""
    server = Server(enter)
    for sock in sockets:
        sock.setblocking(False)
        await server.listen(sock)
    return server
