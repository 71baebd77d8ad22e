"""Connections to log servers that never block: unix, UDP and TCP sockets, and TLS over TCP."""

from __future__ import annotations

import socket
from collections.abc import Callable

from jaula.errors import InvalidRequest
from jaula.logs.address import TLS, LogAddress
from jaula.logs.buffered_sender import Transport
from jaula.spec.host_address import is_host_address

_HANDSHAKE_TIMEOUT = 2.0  # seconds


def connector(
    address: LogAddress,
    *,
    outside: bool = False,
    files: tuple[str, ...] = ("", "", ""),
    verify: bool = True,
) -> Callable[[], Transport]:
    """Return the function that connects to a server.

    With ``outside`` the server's name may not resolve to an address of the host. ``files`` are the
    paths of the CA certificate, the client certificate and its key for TLS, empty if absent.

    :raises InvalidRequest: when the name resolves to such an address.
    :raises OSError: when the name is not known, or a file cannot be read.
    """
    connect = _plain_connector(address, outside=outside)
    if address.scheme == TLS:
        return _tls_connector(connect, address.host, files, verify=verify)
    return connect


def _tls_connector(
    connect: Callable[[], socket.socket], name: str, files: tuple[str, ...], *, verify: bool
) -> Callable[[], Transport]:
    from jaula import tls
    from jaula.logs.tls_sender import TlsSocket

    context = tls.client_context(*files, verify=verify)
    timeout = _HANDSHAKE_TIMEOUT  # only the first connection waits: later ones are made in write

    def connect_tls() -> TlsSocket:
        nonlocal timeout
        sock = TlsSocket(connect(), tls.TlsCodec(context, server=False, name=name))
        sock.handshake(timeout)
        timeout = 0.0
        return sock

    return connect_tls


def _plain_connector(address: LogAddress, *, outside: bool) -> Callable[[], socket.socket]:
    kind = socket.SOCK_STREAM if address.stream else socket.SOCK_DGRAM
    if address.socket:
        family, target = socket.AF_UNIX, address.address
    else:
        host, _, port = address.address.rpartition(":")
        resolved = socket.getaddrinfo(host, int(port), type=kind)[0]
        family, target = resolved[0], resolved[4]  # type: ignore[assignment]
        if outside and is_host_address(str(resolved[4][0])):
            raise InvalidRequest(
                f"the log server {address} is {resolved[4][0]}, an address of the host itself",
                hint=f'the operator may allow it: log-addresses = ["{address}"]',
            )

    def connect() -> socket.socket:
        sock = socket.socket(family, kind)
        try:
            sock.setblocking(False)
            try:
                sock.connect(target)
            except BlockingIOError:
                if address.scheme not in ("tcp", TLS):
                    raise  # the backlog of the listening socket is full
        except BaseException:
            sock.close()
            raise
        return sock

    return connect
