"""TLS for the client: a socket that commands use like any other, served by a thread.

The thread copies bytes between one end of a socket pair and the engine. Code that polls, or closes
one direction only, works unchanged. This module is loaded for addresses with TLS only.
"""

from __future__ import annotations

import _socket
from _thread import start_new_thread
from errno import EPROTO
from select import POLLERR, POLLHUP, POLLIN, POLLOUT, poll
from typing import Any, NamedTuple

from jaula.cli.cli_errors import Unreachable
from jaula.errors import JaulaError
from jaula.tls import CHUNK_SIZE, TlsCodec, TlsError, client_context

SHUT_WR = 1
HANDSHAKE_SECONDS = 30.0


class TlsOptions(NamedTuple):
    """Paths of PEM files (empty: not used), and whether to verify the engine's certificate."""

    authority: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


class TlsSocket(_socket.socket):
    """The near end of the socket pair.

    After all data was read, ``recv`` raises a failure of the connection as ``OSError``. So does
    ``sendall``, instead of the broken pipe to the thread.
    """

    failure = ""

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        if not data and self.failure:
            raise OSError(EPROTO, self.failure)
        return data

    def sendall(self, data: Any, flags: int = 0) -> None:
        try:
            super().sendall(data, flags)
        except OSError:
            if self.failure:
                raise OSError(EPROTO, self.failure) from None
            raise


def connect(network: _socket.socket, host: str, security: TlsOptions) -> TlsSocket:
    """Perform the TLS handshake over a connected socket and return the near end.

    :raises Unreachable: when the handshake fails.
    :raises OSError: when the connection breaks.
    """
    try:
        context = client_context(
            security.authority, security.certificate, security.key, verify=security.verify
        )
        codec = TlsCodec(context, server=False, name=host)
        network.settimeout(HANDSHAKE_SECONDS)
        _handshake(network, codec)
    except (TlsError, JaulaError) as error:
        network.close()
        raise Unreachable(f"cannot connect to {host} with TLS: {error}") from None
    near_end, far_end = _socket.socketpair()
    near = TlsSocket(fileno=near_end.detach())
    start_new_thread(_TlsPump(network, codec, far_end, near).run, ())
    return near


def _handshake(network: _socket.socket, codec: TlsCodec) -> None:
    while True:
        try:
            done = codec.do_handshake()
        finally:
            network.sendall(codec.outgoing())
        if done:
            return
        codec.feed(network.recv(CHUNK_SIZE))


class _TlsPump:
    """Copies bytes in both directions. It buffers at most one piece in each direction."""

    def __init__(
        self,
        network: _socket.socket,
        codec: TlsCodec,
        plain: _socket.socket,
        near: TlsSocket,
    ) -> None:
        self._network = network
        self._codec = codec
        self._plain = plain
        self._near = near
        self._to_network = b""
        self._to_plain = b""
        self._sending = True  # the near end has not been shut down for writing
        self._eof_sent = False  # the near end was shut down after the engine's last byte

    def run(self) -> None:
        """Copy until both sides have finished or one of them is gone."""
        self._network.setblocking(False)
        self._plain.setblocking(False)
        try:
            while self._turn():
                pass
        except TlsError as error:
            self._near.failure = str(error)
        except OSError as error:
            self._near.failure = self._alert() or error.strerror or str(error)
        finally:
            self._plain.close()
            self._network.close()

    def _alert(self) -> str:
        """Return the reason that the engine gave before it closed the connection, '' for none."""
        try:
            self._codec.feed(self._network.recv(CHUNK_SIZE))
            self._codec.read()
        except TlsError as error:
            return str(error)
        except OSError:
            return ""  # it gave none
        return ""

    def _turn(self) -> bool:
        """Wait for one of the sockets and move the available bytes. Return False at the end."""
        if not self._to_plain:
            self._to_plain = self._codec.read()
        self._to_network += self._codec.outgoing()
        if self._codec.ended and not self._to_plain and not self._eof_sent:
            self._eof_sent = True
            self._plain.shutdown(SHUT_WR)
        if self._eof_sent and not self._to_network:
            return False
        poller = poll()
        interests = {
            self._network.fileno(): (0 if self._to_plain or self._eof_sent else POLLIN)
            | (POLLOUT if self._to_network else 0),
            self._plain.fileno(): (POLLIN if self._sending and not self._to_network else 0)
            | (POLLOUT if self._to_plain else 0),
        }
        for descriptor, events in interests.items():
            poller.register(descriptor, events)
        ready = dict(poller.poll())
        return self._network_ready(ready.get(self._network.fileno(), 0)) and self._plain_ready(
            ready.get(self._plain.fileno(), 0)
        )

    def _network_ready(self, events: int) -> bool:
        if events & POLLOUT and self._to_network:
            sent = self._network.send(self._to_network)
            self._to_network = self._to_network[sent:]
        if events & (POLLIN | POLLHUP | POLLERR) and not self._to_plain:
            self._codec.feed(self._network.recv(CHUNK_SIZE))
        return True

    def _plain_ready(self, events: int) -> bool:
        if events & (POLLHUP | POLLERR):
            return False  # the near end was closed
        if events & POLLOUT and self._to_plain:
            sent = self._plain.send(self._to_plain)
            self._to_plain = self._to_plain[sent:]
        if events & POLLIN:
            data = self._plain.recv(CHUNK_SIZE)
            if data:
                self._codec.write(data)
            else:
                self._sending = False
                self._codec.end()
        return True
