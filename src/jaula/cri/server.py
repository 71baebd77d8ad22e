"""The CRI socket: accept connections of kubelet and crictl, and answer their calls."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaula.cri.image_service import ImageService
from jaula.cri.runtime_service import RuntimeService
from jaula.engine.authz.peer import peer_process
from jaula.grpc.connection import Limits
from jaula.grpc.server import Server as GrpcServer
from jaula.spec.api_params import Peer
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.cri.backend import Backend
    from jaula.cri.streaming.server import StreamServer

_log = logging.getLogger("jaula.cri")
_MAX_CONNECTIONS = 1024  # a client that opens one for each call keeps hundreds
_MAX_MESSAGE = 16 << 20  # bytes, as of the kubelet's client
_GRACE_SECONDS = 5.0  # for calls that run when the server closes

Enter = Callable[[Peer], "Backend"]
"""Returns the engine for the peer of a connection."""


class Server:
    """A listening socket and its connections."""

    def __init__(self, sock: socket.socket, enter: Enter, streams: StreamServer) -> None:
        """``streams`` serves exec, attach and port-forward; the server closes it."""
        self._sock = sock
        self._enter = enter
        self._clients: set[socket.socket] = set()
        self._streams = streams
        self._full = False
        self._tasks = BackgroundTasks(_log, "a connection of CRI failed")
        self._accepting = self._tasks.spawn(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._sock)
            if len(self._clients) >= _MAX_CONNECTIONS:
                client.close()
                if not self._full:
                    _log.warning("CRI connections are refused: %d are open", _MAX_CONNECTIONS)
                self._full = True
                continue
            self._full = False
            self._clients.add(client)
            self._tasks.spawn(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                engine = self._enter(peer_process(client))
                server = GrpcServer(
                    {
                        **RuntimeService(engine, self._streams).methods(),
                        **ImageService(engine).methods(),
                    },
                    Limits(message=_MAX_MESSAGE, window=2 * _MAX_MESSAGE, held=2 * _MAX_MESSAGE),
                    check=engine.access.require_access,
                )
                await server.serve(client)
        finally:
            self._clients.discard(client)

    async def close(self) -> None:
        """Stop to accept, and end every connection. The socket's path is not removed."""
        self._accepting.cancel()
        self._sock.close()
        for client in tuple(self._clients):
            client.shutdown(socket.SHUT_RD)
        await self._tasks.finish(_GRACE_SECONDS)
        await self._streams.close()
