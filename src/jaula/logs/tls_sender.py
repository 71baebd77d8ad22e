"""A TLS socket that never blocks, for :class:`~jaula.logs.buffered_sender.BufferedSender`.

An accepted message is sent as far as the socket allows. Its rest is sent before the next message.
The module is loaded for TLS connections only, because it imports the ssl module.
"""

from __future__ import annotations

import errno
import select
import time
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket

from jaula import tls
from jaula.tls import TlsCodec, TlsError

_CLOSE_TIMEOUT = 2.0  # seconds to send the last bytes on close


class TlsSocket:
    """A :class:`~jaula.logs.buffered_sender.Transport` over TLS."""

    def __init__(self, sock: socket, codec: TlsCodec) -> None:
        self._socket = sock
        self._codec = codec
        self._handshake_done = False
        self._pending = b""
        self._failure = ""  # error of the first handshake

    @property
    def poll_events(self) -> int:
        """The mask for poll(2) before the next attempt to send."""
        return select.POLLOUT if self._handshake_done or self._pending else select.POLLIN

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: memoryview, flags: int) -> int:
        """Accept all of ``data``.

        :raises BlockingIOError: when the socket is not ready; then none of it was accepted.
        :raises OSError: when the connection has failed.
        """
        if self._failure:
            raise OSError(errno.EPROTO, self._failure)
        try:
            self._receive()
            if not self._handshake_done:
                self._handshake_done = self._codec.do_handshake()
            self._flush()
            if not self._handshake_done or self._pending:
                raise BlockingIOError(errno.EAGAIN, "TLS is not ready")
            self._codec.write(bytes(data))
            self._flush()
        except TlsError as error:
            raise OSError(errno.EPROTO, str(error)) from None
        return len(data)

    def handshake(self, seconds: float) -> None:
        """Wait up to ``seconds`` for the handshake, so that the first message is sent at once.

        An error is raised later, by the first :meth:`send`.
        """
        end = time.monotonic() + seconds
        try:
            while not self._handshake_done and (left := end - time.monotonic()) > 0:
                self._receive()
                self._handshake_done = self._codec.do_handshake()
                self._flush()
                if not self._handshake_done:
                    poll = select.poll()
                    poll.register(self._socket.fileno(), self.poll_events)
                    poll.poll(left * 1000)
        except (OSError, TlsError) as error:
            self._failure = str(error)

    def _receive(self) -> None:
        """Read the peer's handshake messages. A log server sends no data, so data is discarded."""
        try:
            data = self._socket.recv(tls.CHUNK_SIZE, MSG_DONTWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOTCONN):
                return
            raise
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the log closed the connection")
        self._codec.feed(data)
        while self._handshake_done and self._codec.read():
            pass

    def _flush(self) -> None:
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
        """Send the rest and close_notify within two seconds, then close."""
        end = time.monotonic() + _CLOSE_TIMEOUT
        try:
            if self._handshake_done:
                self._codec.end()
            self._flush()
            while self._pending and (left := end - time.monotonic()) > 0:
                poll = select.poll()
                poll.register(self._socket.fileno(), select.POLLOUT)
                poll.poll(min(left, 0.2) * 1000)
                self._flush()
        except (OSError, TlsError):
            pass  # the peer has closed the connection; the pending bytes are lost
        finally:
            self._socket.close()
