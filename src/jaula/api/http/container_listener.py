"""The listener of a container's engine socket.

The caller is the container, whatever process in it connects: the kernel's report of the peer is
kept for the audit log only.

Facts about a listening socket that another process holds too: epoll reports it after this process
has closed its descriptor. So it is removed from the event loop before it is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec

from jaula.api.http.http_protocol import peer_of
from jaula.listener import DescriptorReserve, Listener
from jaula.spec.api_params import ContainerPeer, Peer

Adopt = Callable[[socket.socket, ContainerPeer], None]
"""Serves one accepted connection."""


class ContainerListener:
    """One listening socket, which the listener owns. ``end`` ends the connections from it.

    Out of descriptors the clients wait: the reserve is for those of the host.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        backlog: int,
        peer: ContainerPeer,
        adopt: Adopt,
        end: Callable[[str], None],
    ) -> None:
        self._sock = sock
        self._peer = peer
        self._adopt = adopt
        self._end = end
        self._listener = Listener(loop, sock, backlog, DescriptorReserve(0), self._serve)

    def _serve(self, client: socket.socket) -> None:
        try:
            process = peer_of(client)
        except OSError:
            client.close()  # it has left already
            return
        assert isinstance(process, Peer)
        self._adopt(
            client, msgspec.structs.replace(self._peer, pid=process.pid, command=process.command)
        )

    def pause(self) -> None:
        """Stop accepting; clients wait."""
        self._listener.stop()

    def close(self) -> None:
        """Stop accepting, close the socket, and end the connections that came from it."""
        if self._sock.fileno() < 0:
            return
        self._listener.close()
        self._end(self._peer.container)
