"""The listener of a container's engine socket.

The caller is the container, whatever process in it connects: the kernel's report of the peer is
kept for the audit log only.

Facts about a listening socket that another process holds too: epoll reports it after this process
has closed its descriptor. So it is removed from the event loop before it is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import msgspec

from jaula.api.http.protocol import peer_of
from jaula.spec.api_params import ContainerPeer, Peer

_ACCEPT_RETRY_SECONDS = 1.0

Adopt = Callable[[socket.socket, ContainerPeer], None]
"""Serves one accepted connection."""

_log = logging.getLogger("jaula.api")


class ContainerListener:
    """One listening socket, which the listener owns. ``end`` ends the connections from it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        peer: ContainerPeer,
        adopt: Adopt,
        end: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._peer = peer
        self._adopt = adopt
        self._end = end
        self._retry: asyncio.TimerHandle | None = None
        self._start()

    def _start(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.warning("cannot accept from container %s: %s", self._peer.container[:12], error)
            self.pause()
            self._retry = self._loop.call_later(_ACCEPT_RETRY_SECONDS, self._start)
            return
        try:
            process = peer_of(client)
        except OSError:
            client.close()  # it has left already
            return
        assert isinstance(process, Peer)
        client.setblocking(False)
        self._adopt(
            client, msgspec.structs.replace(self._peer, pid=process.pid, command=process.command)
        )

    def pause(self) -> None:
        """Stop accepting; clients wait."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        """Stop accepting, close the socket, and end the connections that came from it."""
        if self._sock.fileno() < 0:
            return
        self.pause()
        self._sock.close()
        self._end(self._peer.container)
