"""Forward TCP and UDP ports of the host's network to containers in the engine's network namespace.

A socket belongs to the network namespace in which it was created, whichever process uses it. The
holder is in the engine's network namespace: it accepts on sockets that were created in the host's,
and connects with its own. A container sees the bridge's address as the peer.
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

CHUNK_SIZE = 65536  # bytes
MAX_CHUNKS_PER_TURN = 16  # of one direction, before other connections get their turn
BACKLOG = 512  # connections
UDP_IDLE = 90.0  # seconds until the socket of an idle sender is closed
UDP_PEERS = 4096  # maximum number of senders to one port
_IN_PROGRESS = (errno.EAGAIN, errno.EINPROGRESS)


class HalfConnection:
    """One direction of a connection, with the data that was read and not written yet."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.buffer = b""
        self.eof = False  # the source has sent its end of file
        self.shut_down = False  # it was passed on to the sink

    def pump(self, chunks: int) -> None:
        """Write the buffered data, read more, and pass the end of file on.

        :raises OSError: when a peer has reset the connection.
        """
        if self.buffer:
            self.buffer = self.buffer[_send(self.sink, self.buffer) :]
        while not self.buffer and not self.eof and chunks:
            chunks -= 1
            try:
                data = self.source.recv(CHUNK_SIZE)
            except BlockingIOError:
                return
            if data:
                self.buffer = data[_send(self.sink, data) :]
            else:
                self.eof = True
        if self.eof and not self.buffer and not self.shut_down:
            self.shut_down = True
            self.sink.shutdown(socket.SHUT_WR)


def _send(sink: socket.socket, data: bytes) -> int:
    try:
        return sink.send(data, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0


class Connection:
    """Two sockets with data in both directions, until both have ended or one is reset."""

    def __init__(
        self,
        loop: EventLoop,
        outer: socket.socket,
        inner: socket.socket,
        done: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._done = done
        self._connected = False
        self._hung_up: set[socket.socket] = set()  # closed by the peer: not watched
        self._sockets = (outer, inner)
        self._halves = (HalfConnection(outer, inner), HalfConnection(inner, outer))
        self._watch()

    def _watch(self) -> None:
        for sock, (reading, writing) in zip(
            self._sockets, (self._halves, self._halves[::-1]), strict=True
        ):
            if sock in self._hung_up:
                continue
            events = 0
            if self._connected and not reading.eof and not reading.buffer:
                events |= select.EPOLLIN
            if writing.buffer or (not self._connected and sock is self._sockets[1]):
                events |= select.EPOLLOUT
            self._loop.watch(sock.fileno(), events, partial(self._ready, sock))

    def _ready(self, sock: socket.socket, events: int) -> None:
        lost = events & select.EPOLLERR or (events & select.EPOLLHUP and not self._connected)
        if lost or (not self._connected and sock is not self._sockets[1]):
            self.close()
            return
        self._connected = True
        chunks = MAX_CHUNKS_PER_TURN
        if events & select.EPOLLHUP:  # reported again and again: read the rest now
            self._hung_up.add(sock)
            self._loop.forget(sock.fileno())
        if self._hung_up:
            chunks = -1
        try:
            for half in self._halves:
                half.pump(chunks)
        except OSError:  # one side has reset the connection
            self.close()
            return
        if all(half.shut_down for half in self._halves):
            self.close()
        else:
            self._watch()

    def close(self) -> None:
        """Close both sockets. Idempotent."""
        for sock in self._sockets:
            if sock.fileno() >= 0:
                self._loop.forget(sock.fileno())
                sock.close()
        self._done()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class TcpForward:
    """One listening port and its connections."""

    def __init__(self, loop: EventLoop, listener: socket.socket, forward: Forward) -> None:
        self._loop = loop
        self._listener = listener
        self._target = (forward.target, forward.target_port)
        self._connections: set[Connection] = set()
        listener.listen(BACKLOG)
        listener.setblocking(False)
        loop.watch(listener.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            outer, _address = self._listener.accept()
        except OSError:  # the client has disconnected, or no descriptor is free: retry later
            return
        try:
            inner = socket.socket(_family(self._target[0]), socket.SOCK_STREAM)
        except OSError:  # no descriptor is free
            outer.close()
            return
        for sock in (outer, inner):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = inner.connect_ex(self._target)
        if error and error not in _IN_PROGRESS:
            outer.close()
            inner.close()
            return
        created: list[Connection] = []
        connection = Connection(
            self._loop, outer, inner, lambda: self._connections.discard(created[0])
        )
        created.append(connection)
        self._connections.add(connection)

    def close(self) -> None:
        """Release the port and close its connections."""
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        for connection in list(self._connections):
            connection.close()

    def expire(self, now: float) -> None:
        """Do nothing: connections end by themselves."""


class UdpForward:
    """One UDP port. Each sender has its own socket to the container."""

    def __init__(self, loop: EventLoop, outer: socket.socket, forward: Forward) -> None:
        self._loop = loop
        self._outer = outer
        self._target = (forward.target, forward.target_port)
        self._peers: dict[tuple[str, int], tuple[socket.socket, list[float]]] = {}
        outer.setblocking(False)
        loop.watch(outer.fileno(), select.EPOLLIN, self._receive)

    def _receive(self, _: int) -> None:
        with contextlib.suppress(OSError):  # a datagram may be lost
            data, peer = self._outer.recvfrom(CHUNK_SIZE)
            inner = self._socket_for(peer)
            if inner is not None:
                inner.send(data)

    def _socket_for(self, peer: tuple[str, int]) -> socket.socket | None:
        now = time.monotonic()
        if peer in self._peers:
            inner, last_used = self._peers[peer]
            last_used[0] = now
            return inner
        if len(self._peers) >= UDP_PEERS:
            return None
        inner = socket.socket(_family(self._target[0]), socket.SOCK_DGRAM)
        inner.setblocking(False)
        inner.connect(self._target)
        last_used = [now]
        self._peers[peer] = (inner, last_used)

        def reply(_: int) -> None:
            last_used[0] = time.monotonic()
            with contextlib.suppress(OSError):
                self._outer.sendto(inner.recv(CHUNK_SIZE), peer)

        self._loop.watch(inner.fileno(), select.EPOLLIN, reply)
        return inner

    def expire(self, now: float) -> None:
        """Close the sockets of idle senders."""
        for peer, (inner, last_used) in list(self._peers.items()):
            if now - last_used[0] > UDP_IDLE:
                self._forget(peer, inner)

    def _forget(self, peer: tuple[str, int], inner: socket.socket) -> None:
        del self._peers[peer]
        self._loop.forget(inner.fileno())
        inner.close()

    def close(self) -> None:
        """Release the port."""
        self._loop.forget(self._outer.fileno())
        self._outer.close()
        for peer, (inner, _) in list(self._peers.items()):
            self._forget(peer, inner)
