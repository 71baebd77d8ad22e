"""Send and receive the files of a checkpoint on a connection of their own.

Its calls block, so it has a thread at each end. The source writes with an :class:`ssl.SSLSocket`:
OpenSSL encrypts from the caller's buffer into the socket. The target has the state of the handshake
from the listener, and decrypts from one buffer into another. Neither end makes objects of the data,
so a gigabyte costs half a second of processor time at each of them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING

from jaula.errors import Unavailable
from jaula.features.migration.migration_channel import LinkLost
from jaula.spec import migration
from jaula.spec.migration import DataKind, ProtocolError
from jaula.tls import TlsError

if TYPE_CHECKING:
    from jaula.tls import TlsCodec

CHUNK = 1 << 18  # bytes of one data frame of the source; the second-level cache holds some of them
_CONNECT_TIMEOUT = 10.0  # seconds
_STALL_TIMEOUT = 60.0  # seconds in which the target must take one chunk
_READ = 1 << 18  # bytes


class DataWriter:
    """The end of the source. :meth:`abort` ends a blocked call of another thread."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self.sent = 0  # bytes

    def write(self, kind: DataKind, payload: memoryview | bytes = b"") -> None:
        """Send a frame.

        :raises LinkLost: when the connection has ended, or the target takes nothing.
        """
        self._send(migration.pack_data_head(kind, len(payload)))
        if payload:
            self._send(payload)
        self.sent += len(payload)

    def write_zeros(self, count: int) -> None:
        """Send a frame that stands for ``count`` zero bytes, at most ``MAX_DATA``."""
        self._send(migration.pack_data_head(DataKind.ZEROS, count))

    def _send(self, data: memoryview | bytes) -> None:
        try:
            self._sock.sendall(data)
        except (OSError, ValueError) as error:
            raise LinkLost(f"the connection of the files was lost: {error}") from None

    def abort(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


def connect(host: str, port: int, context: ssl.SSLContext, token: str) -> DataWriter:
    """Connect to the target of a migration; ``token`` is that of its answer. Blocks.

    :raises Unavailable: when the target does not accept the connection.
    """
    where = f"{host}:{port}"
    context.set_alpn_protocols((migration.DATA_PROTOCOL,))
    with contextlib.ExitStack() as stack:
        try:
            plain = stack.enter_context(socket.create_connection((host, port), _CONNECT_TIMEOUT))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = stack.enter_context(context.wrap_socket(plain, server_hostname=host))
            sock.sendall(bytes.fromhex(token))
            answer = sock.recv(1)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise Unavailable(f"cannot send files to the engine at {where}: {reason}") from None
        if (
            sock.selected_alpn_protocol() != migration.DATA_PROTOCOL
            or answer != migration.DATA_ACCEPTED
        ):
            raise Unavailable(f"the engine at {where} does not accept files of this migration")
        sock.settimeout(_STALL_TIMEOUT)
        stack.pop_all()
    return DataWriter(sock)


class DataReader:
    """The end of the target, after the token. The caller closes the socket.

    :meth:`abort` ends a blocked call of another thread.
    """

    def __init__(self, sock: socket.socket, codec: TlsCodec) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._codec = codec
        self._read = memoryview(bytearray(_READ))

    def accept(self) -> None:
        """Tell the source that its token is right.

        :raises LinkLost: when the connection has ended.
        """
        try:
            self._codec.write(migration.DATA_ACCEPTED)
            self._sock.sendall(self._codec.outgoing())
        except (OSError, TlsError) as error:
            raise LinkLost(f"the connection of the files was lost: {error}") from None

    def read_head(self) -> tuple[DataKind, int]:
        """Return the kind and the length of the next frame.

        :raises ProtocolError: when they are not valid.
        :raises LinkLost: when the connection has ended.
        """
        head = bytearray(migration.DATA_HEAD_SIZE)
        self.read_into(memoryview(head))
        return migration.unpack_data_head(memoryview(head))

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer.

        :raises LinkLost: when the connection has ended.
        """
        try:
            while buffer:
                if count := self._codec.read_into(buffer):
                    buffer = buffer[count:]
                    continue
                received = 0 if self._codec.ended else self._sock.recv_into(self._read)
                if not received:
                    raise LinkLost("the source has closed the connection of the files")
                self._codec.feed(self._read[:received])
        except (OSError, TlsError) as error:
            raise LinkLost(f"the connection of the files was lost: {error}") from None

    def abort(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


def decode_name(data: bytes) -> str:
    """Return the name of a ``NAME`` frame.

    :raises ProtocolError: when it is not ASCII.
    """
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("the peer sent the name of a file that is not ASCII") from None
