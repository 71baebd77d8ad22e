"""Send log messages to a socket that may be slow, full or disconnected, without blocking.

Messages that the socket does not accept are buffered up to a limit. Beyond it the oldest message is
dropped and counted. A broken connection is made again, at most once a second.
"""

from __future__ import annotations

import errno
import select
import time
from collections import deque
from collections.abc import Callable
from socket import MSG_DONTWAIT, MSG_NOSIGNAL
from typing import Protocol

_RECONNECT_INTERVAL = 1.0  # seconds between two attempts to connect
_CLOSE_TIMEOUT = 2.0  # seconds to send the last messages on close
_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EINPROGRESS, errno.ENOTCONN)


class Transport(Protocol):
    """A socket, or an object with its interface.

    The optional attribute ``poll_events`` is the mask for poll(2) before the next attempt to send.
    """

    def send(self, data: memoryview, flags: int, /) -> int: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class BufferedSender:
    """Sends whole messages. ``connect`` returns a socket that may still be connecting.

    ``limit`` is the size of the buffer in bytes. With ``stream``, a message that was sent in part
    is resumed at that offset, and dropped if the connection breaks: no message is ever cut.
    """

    def __init__(self, connect: Callable[[], Transport], limit: int, *, stream: bool) -> None:
        self.dropped = 0
        self.error = ""
        self._connect = connect
        self._limit = limit
        self._stream = stream
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._sent = 0  # bytes of the first message that were sent
        self._socket: Transport | None = connect()
        self._next_attempt = 0.0

    def send(self, message: bytes) -> None:
        """Queue a message, and send what the socket accepts."""
        self._queue.append(message)
        self._size += len(message)
        while self._size > self._limit and len(self._queue) > 1:
            self._drop(1 if self._sent else 0)
        self.flush()

    def _drop(self, index: int) -> None:
        message = self._queue[index]
        del self._queue[index]
        self._size -= len(message)
        self.dropped += len(message)

    def flush(self) -> bool:
        """Send what the socket accepts. Return whether the queue is empty."""
        if self._socket is None and not self._reconnect():
            return not self._queue
        assert self._socket is not None
        while self._queue:
            message = self._queue[0]
            try:
                count = self._socket.send(
                    memoryview(message)[self._sent :], MSG_DONTWAIT | MSG_NOSIGNAL
                )
            except OSError as error:
                if error.errno in _FULL:
                    return False
                self._fail(error)
                return False
            self._sent += count
            if self._stream and self._sent < len(message):
                return False
            self._queue.popleft()
            self._size -= len(message)
            self._sent = 0
        return True

    def _fail(self, error: OSError) -> None:
        self.error = f"cannot send to the log: {error.strerror}"
        if error.errno == errno.EMSGSIZE or self._sent:
            self._drop(0)
            self._sent = 0
            if error.errno == errno.EMSGSIZE:
                return
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._next_attempt = time.monotonic() + _RECONNECT_INTERVAL

    def _reconnect(self) -> bool:
        if time.monotonic() < self._next_attempt:
            return False
        try:
            self._socket = self._connect()
        except OSError as error:
            self.error = f"cannot connect to the log: {error.strerror}"
            self._next_attempt = time.monotonic() + _RECONNECT_INTERVAL
            return False
        return True

    def close(self) -> None:
        """Send the last messages within two seconds, count the rest as dropped, and close."""
        end = time.monotonic() + _CLOSE_TIMEOUT
        while not self.flush() and self._socket is not None:
            left = end - time.monotonic()
            if left <= 0:
                break
            events = getattr(self._socket, "poll_events", select.POLLOUT)
            poll = select.poll()
            poll.register(self._socket.fileno(), events)
            poll.poll(min(left, 0.2) * 1000)
        while self._queue:
            self._drop(0)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
