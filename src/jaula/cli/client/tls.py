"""TLS for the client: a socket that commands use as any other, and a thread behind it.

The thread carries bytes between one end of a pair of sockets and the engine. So whoever polls, or
closes one direction only, need not know that there is more between them and the engine than a
socket. It is loaded for addresses with TLS only.
"""

from __future__ import annotations

import _socket
from _thread import start_new_thread
from errno import EPROTO
from select import POLLERR, POLLHUP, POLLIN, POLLOUT, poll
from typing import NamedTuple

from jaula.cli.errors import Unreachable
from jaula.errors import JaulaError
from jaula.tls import CHUNK_SIZE, TlsCodec, TlsError, client_context

SHUT_WR = 1
HANDSHAKE_SECONDS = 30.0


class TlsOptions(NamedTuple):
    """PEM files, empty where there are none; whether the engine must prove who it is."""

    authority: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


class TlsSocket(_socket.socket):
    """The near end. What went wrong behind it is an ``OSError`` once all has been read."""

    failure = ""

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        if not data and self.failure:
            raise OSError(EPROTO, self.failure)
        return data


def connect(network: _socket.socket, host: str, security: TlsOptions) -> TlsSocket:
    """Shake hands over a connected socket. Raises Unreachable, ``OSError``."""
    try:
        context = client_context(
            security.authority, security.certificate, security.key, verify=security.verify
        )
        codec = TlsCodec(context, server=False, name=host)
        network.settimeout(HANDSHAKE_SECONDS)
        _shake(network, codec)
    except (TlsError, JaulaError) as error:
        network.close()
        raise Unreachable(f"cannot speak with {host} by TLS: {error}") from None
    ours, theirs = _socket.socketpair()
    near = TlsSocket(fileno=ours.detach())
    start_new_thread(_Carrier(network, codec, theirs, near).run, ())
    return near


def _shake(network: _socket.socket, codec: TlsCodec) -> None:
    while True:
        try:
            done = codec.do_handshake()
        finally:
            network.sendall(codec.outgoing())
        if done:
            return
        codec.feed(network.recv(CHUNK_SIZE))


class _Carrier:
    """Moves bytes both ways; holds back one piece a way at most."""

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
        self._speaking = True  # the near side has not closed its direction
        self._told = False  # the near side knows that the engine has finished

    def run(self) -> None:
        """Until both sides have finished, or one is gone."""
        self._network.setblocking(False)
        self._plain.setblocking(False)
        try:
            while self._turn():
                pass
        except TlsError as error:
            self._near.failure = str(error)
        except OSError as error:
            self._near.failure = error.strerror or str(error)
        finally:
            self._plain.close()
            self._network.close()

    def _turn(self) -> bool:
        """Wait for one of the sockets and move what can be; False at the end."""
        if not self._to_plain:
            self._to_plain = self._codec.read()
        self._to_network += self._codec.outgoing()
        if self._codec.ended and not self._to_plain and not self._told:
            self._told = True
            self._plain.shutdown(SHUT_WR)
        if self._told and not self._to_network:
            return False
        poller = poll()
        wanted = {
            self._network.fileno(): (0 if self._to_plain or self._told else POLLIN)
            | (POLLOUT if self._to_network else 0),
            self._plain.fileno(): (POLLIN if self._speaking and not self._to_network else 0)
            | (POLLOUT if self._to_plain else 0),
        }
        for descriptor, events in wanted.items():
            poller.register(descriptor, events)
        found = dict(poller.poll())
        return self._network_ready(found.get(self._network.fileno(), 0)) and self._plain_ready(
            found.get(self._plain.fileno(), 0)
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
            return False  # the near side was closed
        if events & POLLOUT and self._to_plain:
            sent = self._plain.send(self._to_plain)
            self._to_plain = self._to_plain[sent:]
        if events & POLLIN:
            data = self._plain.recv(CHUNK_SIZE)
            if data:
                self._codec.write(data)
            else:
                self._speaking = False
                self._codec.end()
        return True
