"""Sockets of the host's network whose traffic goes to containers in the engine's: TCP and UDP.

A socket belongs to the network namespace in which it was made, whoever uses it later. So the
keeper, which is in the engine's network, accepts on sockets that were made in the host's, and
connects with its own. A container sees the bridge's address as the peer.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable
from functools import partial

from jaula.rootless.port_protocol import Forward
from jaula.runtime.shim.event_loop import EventLoop

CHUNK_SIZE = 65536
MAX_CHUNKS_PER_TURN = 16  # pieces of one direction before others have their turn
BACKLOG = 512
UDP_IDLE = 90.0  # seconds after which a silent sender is forgotten
UDP_PEERS = 4096  # senders of one port at most
_LATER = (errno.EAGAIN, errno.EINPROGRESS)


class HalfConnection:
    """One direction of a connection: what was read and is not yet written."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.waiting = b""
        self.ended = False  # nothing more comes
        self.shut = False  # and the other side knows

    def pump(self, pieces: int) -> None:
        """Write what waits, read more, pass an end on. Raises ``OSError`` for a lost peer."""
        if self.waiting:
            self.waiting = self.waiting[_send(self.sink, self.waiting) :]
        while not self.waiting and not self.ended and pieces:
            pieces -= 1
            try:
                data = self.source.recv(CHUNK_SIZE)
            except BlockingIOError:
                return
            if data:
                self.waiting = data[_send(self.sink, data) :]
            else:
                self.ended = True
        if self.ended and not self.waiting and not self.shut:
            self.shut = True
            self.sink.shutdown(socket.SHUT_WR)


def _send(sink: socket.socket, data: bytes) -> int:
    try:
        return sink.send(data, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0


class Connection:
    """Two sockets whose data crosses, until both directions have ended or one is lost."""

    def __init__(
        self,
        poller: EventLoop,
        outer: socket.socket,
        inner: socket.socket,
        done: Callable[[], None],
    ) -> None:
        self._poller = poller
        self._done = done
        self._connected = False
        self._hung: set[socket.socket] = set()  # closed from afar both ways: no longer watched
        self._sockets = (outer, inner)
        self._halves = (HalfConnection(outer, inner), HalfConnection(inner, outer))
        self._watch()

    def _watch(self) -> None:
        for own, (reading, writing) in zip(
            self._sockets, (self._halves, self._halves[::-1]), strict=True
        ):
            if own in self._hung:
                continue
            events = 0
            if self._connected and not reading.ended and not reading.waiting:
                events |= select.EPOLLIN
            if writing.waiting or (not self._connected and own is self._sockets[1]):
                events |= select.EPOLLOUT
            self._poller.watch(own.fileno(), events, partial(self._ready, own))

    def _ready(self, own: socket.socket, events: int) -> None:
        lost = events & select.EPOLLERR or (events & select.EPOLLHUP and not self._connected)
        if lost or (not self._connected and own is not self._sockets[1]):
            self.close()
            return
        self._connected = True
        pieces = MAX_CHUNKS_PER_TURN
        if events & select.EPOLLHUP:  # would be reported for ever: what it still has is read now
            self._hung.add(own)
            self._poller.forget(own.fileno())
        if self._hung:
            pieces = -1
        try:
            for half in self._halves:
                half.pump(pieces)
        except OSError:  # reset by one side, so for the other too
            self.close()
            return
        if all(half.shut for half in self._halves):
            self.close()
        else:
            self._watch()

    def close(self) -> None:
        """End both sides; twice is no error."""
        for own in self._sockets:
            if own.fileno() >= 0:
                self._poller.forget(own.fileno())
                own.close()
        self._done()


class TcpForward:
    """One listening port and its connections."""

    def __init__(self, poller: EventLoop, listening: socket.socket, forward: Forward) -> None:
        self._poller = poller
        self._listening = listening
        self._target = (forward.target, forward.target_port)
        self._connections: set[Connection] = set()
        listening.listen(BACKLOG)
        listening.setblocking(False)
        poller.watch(listening.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            outer, _address = self._listening.accept()
        except OSError:  # gone again, or no descriptor is left: the next one may do better
            return
        try:
            inner = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left
            outer.close()
            return
        for own in (outer, inner):
            own.setblocking(False)
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = inner.connect_ex(self._target)
        if failure and failure not in _LATER:
            outer.close()
            inner.close()
            return
        holder: list[Connection] = []
        connection = Connection(
            self._poller, outer, inner, lambda: self._connections.discard(holder[0])
        )
        holder.append(connection)
        self._connections.add(connection)

    def close(self) -> None:
        """Give the port back and cut its connections."""
        self._poller.forget(self._listening.fileno())
        self._listening.close()
        for connection in list(self._connections):
            connection.close()

    def expire(self, now: float) -> None:
        """Connections end by themselves."""


class UdpForward:
    """One port; each sender has a socket of its own towards the container."""

    def __init__(self, poller: EventLoop, outer: socket.socket, forward: Forward) -> None:
        self._poller = poller
        self._outer = outer
        self._target = (forward.target, forward.target_port)
        self._peers: dict[tuple[str, int], tuple[socket.socket, list[float]]] = {}
        outer.setblocking(False)
        poller.watch(outer.fileno(), select.EPOLLIN, self._arrived)

    def _arrived(self, _: int) -> None:
        with contextlib.suppress(OSError):  # a datagram may be lost
            data, peer = self._outer.recvfrom(CHUNK_SIZE)
            inner = self._inner(peer)
            if inner is not None:
                inner.send(data)

    def _inner(self, peer: tuple[str, int]) -> socket.socket | None:
        now = time.monotonic()
        if peer in self._peers:
            inner, used = self._peers[peer]
            used[0] = now
            return inner
        if len(self._peers) >= UDP_PEERS:
            return None
        inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        inner.setblocking(False)
        inner.connect(self._target)
        used = [now]
        self._peers[peer] = (inner, used)

        def answered(_: int) -> None:
            used[0] = time.monotonic()
            with contextlib.suppress(OSError):
                self._outer.sendto(inner.recv(CHUNK_SIZE), peer)

        self._poller.watch(inner.fileno(), select.EPOLLIN, answered)
        return inner

    def expire(self, now: float) -> None:
        """Forget senders that have been silent."""
        for peer, (inner, used) in list(self._peers.items()):
            if now - used[0] > UDP_IDLE:
                self._forget(peer, inner)

    def _forget(self, peer: tuple[str, int], inner: socket.socket) -> None:
        del self._peers[peer]
        self._poller.forget(inner.fileno())
        inner.close()

    def close(self) -> None:
        """Give the port back."""
        self._poller.forget(self._outer.fileno())
        self._outer.close()
        for peer, (inner, _) in list(self._peers.items()):
            self._forget(peer, inner)
