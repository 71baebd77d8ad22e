"""The API server: listening sockets, their connections, and the shutdown."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaula.api.http.container_listener import ContainerListener
from jaula.api.http.http_protocol import BUSY, DENIED, STOPPING, HttpProtocol
from jaula.api.http.http_request import Limits
from jaula.api.http.http_session import HttpSession
from jaula.api.http.router import Router, Routes
from jaula.api.routes import ROUTES, nouns, routes_of
from jaula.caller_quota import CallerQuota
from jaula.listener import DescriptorReserve, Listener
from jaula.spec.api_params import ContainerPeer, Origin, Remote
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from ssl import SSLContext

    from jaula.api.http.tls_listener import ServeStream, TlsListener
    from jaula.engine.authz.gateway import EngineApi

MAX_CONNECTIONS = 1024
ROOT_CONNECTIONS = 64  # of these, for root only
MAX_REFUSED = 64  # connections of clients that get an error as the answer to their first request
REFUSED_SECONDS = 5.0  # for the first head of such a client
MAX_BODIES = 64 * 1024 * 1024  # bytes of all bodies that are held in memory
ROOT_BODIES = 8 * 1024 * 1024  # of these, for root only
MAX_TRANSFERS = 512  # requests that have a thread of their own
ROOT_TRANSFERS = 32  # of these, for root only
BACKLOG = 512  # connections
SWEEP_SECONDS = 5.0
GRACE_SECONDS = 5.0  # for routes that run when the server closes
IDLE_SECONDS = 5.0  # without a connection that begins or ends, until the server is idle

Enter = Callable[[Origin | None], "EngineApi"]
"""Returns the engine for the peer of a connection."""

_log = logging.getLogger("jaula.api")


class Server:
    """A running API server. It keeps a reference to every task until the task has ended."""

    def __init__(
        self,
        enter: Enter,
        *,
        max_connections: int = MAX_CONNECTIONS,
        root_connections: int = ROOT_CONNECTIONS,
        routes: Routes | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._enter = enter
        self._router = Router(ROUTES, nouns(), routes_of) if routes is None else Router(routes)
        self._admitted = CallerQuota(max_connections, root_connections)
        self._refused = CallerQuota(MAX_REFUSED, 0)
        self._limits = Limits(
            bodies=CallerQuota(MAX_BODIES, ROOT_BODIES),
            transfers=CallerQuota(MAX_TRANSFERS, ROOT_TRANSFERS),
        )
        self._connections: dict[HttpProtocol, tuple[CallerQuota, str]] = {}
        self._tasks = BackgroundTasks(_log, "a connection failed")
        self._listeners: list[Listener] = []
        self._reserve = DescriptorReserve()
        self._tls_listeners: list[TlsListener] = []
        self._container_listeners: set[ContainerListener] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False
        self._last_change = 0.0  # when a connection began or ended
        self._idle_check: asyncio.TimerHandle | None = None
        self.on_idle: Callable[[], None] | None = None  # called each time the server becomes idle

    async def listen(self, sock: socket.socket) -> None:
        """Accept on a bound stream socket, which the server owns from now on.

        Clients that connect over TCP are anonymous.
        """
        self.add(sock)

    def add(self, sock: socket.socket) -> None:
        """Accept on one more socket, as :meth:`listen` does."""
        listener = Listener(self.loop, sock, BACKLOG, self._reserve, self._serve)
        self._listeners.append(listener)

    def _serve(self, client: socket.socket, origin: ContainerPeer | None = None) -> None:
        self.spawn(self._adopt(client, origin))

    async def listen_tls(
        self, sock: socket.socket, context: SSLContext, streams: Mapping[str, ServeStream]
    ) -> TlsListener:
        """Accept clients with a certificate on a bound TCP socket, which the server owns then.

        ``streams`` serve the connections of other protocols than HTTP, by their ALPN names. Set
        ``context`` of the returned listener when certificates change.
        """
        from jaula.api.http import tls_listener

        listener = tls_listener.TlsListener(self.loop, sock, context, self._adopt, streams)
        self._tls_listeners.append(listener)
        return listener

    def listen_container(self, sock: socket.socket, peer: ContainerPeer) -> ContainerListener:
        """Accept the clients in a container on its engine socket, which the listener owns then."""

        def end(container_id: str) -> None:
            self._container_listeners.discard(listener)
            for connection in self._connections_of(container_id):
                connection.transport.abort()

        listener = ContainerListener(self.loop, sock, BACKLOG, peer, self._serve, end)
        self._container_listeners.add(listener)
        return listener

    def _connections_of(self, container_id: str) -> list[HttpProtocol]:
        return [
            connection
            for connection in self._connections
            if isinstance(connection.peer, ContainerPeer)
            and connection.peer.container == container_id
        ]

    async def _adopt(self, sock: socket.socket, origin: Remote | ContainerPeer | None) -> None:
        """Serve on a socket. ``origin`` is its peer if the kernel would name another one."""
        await self.loop.connect_accepted_socket(lambda: HttpProtocol(self, origin), sock)

    async def close(self) -> None:
        """End idle connections and streams, let routes finish within the grace, stop listening.

        A client that connects meanwhile is answered that the engine stops. The path of a unix
        socket is not removed.
        """
        self._closing = True
        for tls_listener in self._tls_listeners:
            tls_listener.stop()
        for container_listener in self._container_listeners:
            container_listener.pause()  # clients wait for the next engine
        for connection in tuple(self._connections):
            connection.finish()
        await self._tasks.finish(GRACE_SECONDS)
        for listener in self._listeners:
            listener.close()
        self._reserve.release()
        for tls_listener in self._tls_listeners:
            await tls_listener.close()
        for timer in (self._sweeper, self._idle_check):
            if timer is not None:
                timer.cancel()

    # -- called by a connection (protocol.ProtocolOwner) ------------------------------------------

    def admit(self, connection: HttpProtocol) -> Coroutine[Any, Any, None] | bytes:
        """Return what serves a new connection, or the whole answer to one that is refused.

        A client without access, or above its share, gets the error as the answer to its first
        request: one that is answered before it has sent a request may report a broken pipe. Only
        few such clients are waited for, and not for long.
        """
        if self._closing:
            return STOPPING
        engine = self._enter(connection.peer)
        caller, root = engine.access.caller, engine.access.is_root
        allowed, quota = engine.access.is_allowed, self._admitted
        busy = allowed and not quota.take(caller, 1, root=root)
        if busy or not allowed:
            quota = self._refused
            if not quota.take(caller, 1, root=root):
                return BUSY if busy else DENIED
            connection.head_end = self.loop.time() + REFUSED_SECONDS
        self._connections[connection] = quota, caller
        self._note_change()
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)
        return HttpSession(connection, self._router, engine, self._limits, busy=busy).run()

    def forget(self, connection: HttpProtocol) -> None:
        """Remove a lost connection."""
        quota, caller = self._connections.pop(connection, (None, ""))
        if quota is not None:
            quota.give_back(caller, 1)
            self._note_change()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` as a task and log its failure."""
        return self._tasks.spawn(work)

    def _note_change(self) -> None:
        self._last_change = self.loop.time()
        if self._idle_check is None and self.on_idle is not None and not self._closing:
            self._idle_check = self.loop.call_later(IDLE_SECONDS, self._check_idle)

    def _check_idle(self) -> None:
        """Call ``on_idle``, or wait longer after a change. The timer runs only after one."""
        self._idle_check = None
        left = self._last_change + IDLE_SECONDS - self.loop.time()
        if left > 0:
            self._idle_check = self.loop.call_later(left, self._check_idle)
        elif self.on_idle is not None:
            self.on_idle()

    def _sweep(self) -> None:
        """Enforce deadlines; the timer runs only while there are connections."""
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
