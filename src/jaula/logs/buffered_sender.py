"""Records on their way to a socket that may be slow, full or gone, without ever waiting for it.

What the socket does not take is held back up to a limit, then the oldest is dropped and counted. A
connection that breaks is made again, at most once a second.
"""

from __future__ import annotations

import errno
import select
import time
from collections import deque
from collections.abc import Callable
from socket import MSG_DONTWAIT, MSG_NOSIGNAL
from typing import Protocol

_AGAIN = 1.0  # seconds between two attempts to connect
_FAREWELL = 2.0  # seconds that the last records have at the end
_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EINPROGRESS, errno.ENOTCONN)


class Transport(Protocol):
    """A socket, or what can be used as one. ``awaits``, if it has that, is what to poll for."""

    def send(self, data: memoryview, flags: int, /) -> int: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class BufferedSender:
    """Sends whole records; ``connect`` gives a socket that may still be connecting.

    Records of a stream are never cut: one that was sent in part goes on where it stopped, and is
    dropped when its connection breaks.
    """

    def __init__(self, connect: Callable[[], Transport], limit: int, *, stream: bool) -> None:
        self.dropped = 0
        self.error = ""
        self._connect = connect
        self._limit = limit
        self._stream = stream
        self._held: deque[bytes] = deque()
        self._size = 0
        self._sent = 0  # bytes of the first record that are gone already
        self._socket: Transport | None = connect()
        self._next = 0.0

    def send(self, record: bytes) -> None:
        """Hand a record on now or later."""
        self._held.append(record)
        self._size += len(record)
        while self._size > self._limit and len(self._held) > 1:
            self._drop(1 if self._sent else 0)
        self.push()

    def _drop(self, index: int) -> None:
        record = self._held[index]
        del self._held[index]
        self._size -= len(record)
        self.dropped += len(record)

    def push(self) -> bool:
        """Send what the socket takes; whether nothing is left."""
        if self._socket is None and not self._reconnect():
            return not self._held
        assert self._socket is not None
        while self._held:
            record = self._held[0]
            try:
                count = self._socket.send(
                    memoryview(record)[self._sent :], MSG_DONTWAIT | MSG_NOSIGNAL
                )
            except OSError as error:
                if error.errno in _FULL:
                    return False
                self._broken(error)
                return False
            self._sent += count
            if self._stream and self._sent < len(record):
                return False
            self._held.popleft()
            self._size -= len(record)
            self._sent = 0
        return True

    def _broken(self, error: OSError) -> None:
        self.error = f"cannot send to the log: {error.strerror}"
        if error.errno == errno.EMSGSIZE or self._sent:
            self._drop(0)
            self._sent = 0
            if error.errno == errno.EMSGSIZE:
                return
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._next = time.monotonic() + _AGAIN

    def _reconnect(self) -> bool:
        if time.monotonic() < self._next:
            return False
        try:
            self._socket = self._connect()
        except OSError as error:
            self.error = f"cannot connect to the log: {error.strerror}"
            self._next = time.monotonic() + _AGAIN
            return False
        return True

    def close(self) -> None:
        """Give the last records a moment, count what is lost, and let go."""
        end = time.monotonic() + _FAREWELL
        while not self.push() and self._socket is not None:
            left = end - time.monotonic()
            if left <= 0:
                break
            poll = select.poll()
            poll.register(self._socket.fileno(), getattr(self._socket, "awaits", select.POLLOUT))
            poll.poll(min(left, 0.2) * 1000)
        while self._held:
            self._drop(0)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
