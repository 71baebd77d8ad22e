"""A TCP connection with TLS that never waits: what an :class:`~jaula.logs.buffered_sender.BufferedSender` sends by.

A record that was taken is sent as far as the socket goes; what is left of it goes before the next
one. It is loaded for such connections only, since it brings the ssl module along.
"""

from __future__ import annotations

import errno
import select
import time
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket

from jaula import tls
from jaula.tls import TlsCodec, TlsError

_FAREWELL = 2.0  # seconds that the last bytes have


class TlsSocket:
    """Like a socket, as far as an outlet needs one."""

    def __init__(self, sock: socket, codec: TlsCodec) -> None:
        self._socket = sock
        self._codec = codec
        self._shaken = False
        self._pending = b""
        self._failure = ""  # found while it settled

    @property
    def awaits(self) -> int:
        """What to poll for before it is worth trying again."""
        return select.POLLOUT if self._shaken or self._pending else select.POLLIN

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: memoryview, flags: int) -> int:
        """Take all of ``data``, or none: ``BlockingIOError``. Raises ``OSError``."""
        if self._failure:
            raise OSError(errno.EPROTO, self._failure)
        try:
            self._receive()
            if not self._shaken:
                self._shaken = self._codec.do_handshake()
            self._push()
            if not self._shaken or self._pending:
                raise BlockingIOError(errno.EAGAIN, "TLS is not ready")
            self._codec.write(bytes(data))
            self._push()
        except TlsError as error:
            raise OSError(errno.EPROTO, str(error)) from None
        return len(data)

    def settle(self, seconds: float) -> None:
        """Give the handshake its time, so that the first record goes out as it comes.

        A failure is left for that record to find.
        """
        end = time.monotonic() + seconds
        try:
            while not self._shaken and (left := end - time.monotonic()) > 0:
                self._receive()
                self._shaken = self._codec.do_handshake()
                self._push()
                if not self._shaken:
                    poll = select.poll()
                    poll.register(self._socket.fileno(), self.awaits)
                    poll.poll(left * 1000)
        except (OSError, TlsError) as error:
            self._failure = str(error)

    def _receive(self) -> None:
        """The handshake's answers; a log says nothing, so anything else is dropped."""
        try:
            data = self._socket.recv(tls.CHUNK_SIZE, MSG_DONTWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOTCONN):
                return
            raise
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the log closed the connection")
        self._codec.feed(data)
        while self._shaken and self._codec.read():
            pass

    def _push(self) -> None:
        self._pending += self._codec.outgoing()
        while self._pending:
            try:
                sent = self._socket.send(self._pending, MSG_DONTWAIT | MSG_NOSIGNAL)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOTCONN, errno.EINPROGRESS):
                    return
                raise
            self._pending = self._pending[sent:]

    def close(self) -> None:
        """Say farewell, and let go."""
        end = time.monotonic() + _FAREWELL
        try:
            if self._shaken:
                self._codec.end()
            self._push()
            while self._pending and (left := end - time.monotonic()) > 0:
                poll = select.poll()
                poll.register(self._socket.fileno(), select.POLLOUT)
                poll.poll(min(left, 0.2) * 1000)
                self._push()
        except (OSError, TlsError):
            pass  # it is gone, and what was pending with it
        finally:
            self._socket.close()
