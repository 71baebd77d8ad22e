"""The CRI socket: accept connections of kubelet and crictl, and answer their calls.

Only root can connect, so the caller of a share is a process and not a user. A process that keeps
its connections, or that sends more than is handled, does not keep the kubelet out.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from jaula.caller_quota import CallerQuota, CallerShare
from jaula.engine.authz.peer import peer_process
from jaula.features.kubernetes.cri.image_service import ImageService
from jaula.features.kubernetes.cri.runtime_service import RuntimeService
from jaula.grpc.grpc_server import Server as GrpcServer
from jaula.grpc.http2_connection import Limits
from jaula.listener import DescriptorReserve, Listener
from jaula.spec.api_params import Peer
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi
    from jaula.features.kubernetes.cri.streaming.streaming_server import StreamServer

_log = logging.getLogger("jaula.features.kubernetes.cri")
MAX_CONNECTIONS = 1024  # a client that opens one for each call keeps hundreds
MAX_MEMORY = 128 << 20  # bytes of the requests and answers of all connections
_BACKLOG = 64  # connections
_MAX_MESSAGE = 16 << 20  # bytes, as of the kubelet's client
_MAX_HEADERS = 16 << 10  # bytes
_STALL_SECONDS = 60.0  # in which a client has to read a part of an answer
_RESERVE = 8  # descriptors, with which clients are accepted when no other is free
_GRACE_SECONDS = 5.0  # for calls that run when the server closes

LIMITS = Limits(
    message=_MAX_MESSAGE,
    window=2 * _MAX_MESSAGE,
    held=2 * _MAX_MESSAGE,
    partial=2 * _MAX_MESSAGE,
    headers=_MAX_HEADERS,
    requests=1,
    stall=_STALL_SECONDS,
)

Enter = Callable[[Peer], "EngineApi"]
"""Returns the engine for the peer of a connection."""


class Server:
    """A listening socket and its connections."""

    def __init__(self, sock: socket.socket, enter: Enter, streams: StreamServer) -> None:
        """``streams`` serves exec, attach and port-forward; the server closes it."""
        self._enter = enter
        self._connections: set[GrpcServer] = set()
        self._admitted = CallerQuota(MAX_CONNECTIONS, 0)
        self._memory = CallerQuota(MAX_MEMORY, 0)
        self._refused: set[str] = set()  # callers above their share
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._streams = streams
        self._tasks = BackgroundTasks(_log, "a connection of CRI failed")
        self._reserve = DescriptorReserve(_RESERVE)
        loop = asyncio.get_running_loop()
        self._listener = Listener(loop, sock, _BACKLOG, self._reserve, self._admit)

    def replace(self, sock: socket.socket) -> None:
        """Accept on another socket: the path of the first one was removed."""
        self._listener.close()
        loop = asyncio.get_running_loop()
        self._listener = Listener(loop, sock, _BACKLOG, self._reserve, self._admit)

    def _admit(self, client: socket.socket) -> None:
        """Serve a client, or close its connection if its process has its share of them."""
        try:
            peer = peer_process(client)
        except OSError:
            client.close()  # it has left already
            return
        caller = f"{peer.uid}:{peer.pid}"
        if not self._admitted.take(caller, 1, root=False):
            if caller not in self._refused:
                self._refused.add(caller)
                _log.warning(
                    "process %d (%s) has its share of the connections of CRI: more are closed",
                    *(peer.pid, peer.command),
                )
            client.close()
            return
        self._tasks.spawn(self._serve(client, peer, caller))

    async def _serve(self, client: socket.socket, peer: Peer, caller: str) -> None:
        try:
            with client:
                engine = self._enter(peer)
                turn = self._turns.setdefault(caller, asyncio.Lock())
                server = GrpcServer(
                    {
                        **RuntimeService(engine, self._streams).methods(),
                        **ImageService(engine).methods(),
                    },
                    LIMITS,
                    check=engine.access.require_access,
                    share=CallerShare(self._memory, caller),
                    turn=turn,
                )
                self._connections.add(server)
                try:
                    await server.serve(client)
                finally:
                    self._connections.discard(server)
        finally:
            self._admitted.give_back(caller, 1)
            self._refused.discard(caller)

    async def close(self) -> None:
        """Stop to accept, and end every connection after the calls that run, within the grace.

        The socket's path is not removed.
        """
        self._listener.close()
        self._reserve.release()
        for server in tuple(self._connections):
            server.stop()
        await self._tasks.finish(_GRACE_SECONDS)
        await self._streams.close()
