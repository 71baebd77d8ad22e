"""The pump between a TLS client and a plain socket, with one chunk in each direction.

A half-close is forwarded to the other side (see :mod:`jaula.tls`): a client that has finished its
input still reads the answer. If the client's TCP stream ends, the client is gone: the plain socket
is closed in both directions, so that the other end of the pair notices.
"""

from __future__ import annotations

import asyncio
import socket

from jaula import tls
from jaula.tls import TlsCodec, TlsError

_CLOSE_SECONDS = 2.0


class SocketPump:
    """One connection after its handshake. The pump closes ``plain``, but not ``client``."""

    def __init__(self, client: socket.socket, codec: TlsCodec, plain: socket.socket) -> None:
        self._client = client
        self._codec = codec
        self._plain = plain
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Run until the client is gone, or the plain side has sent everything."""
        from_client = asyncio.ensure_future(self._from_client())
        to_client = asyncio.ensure_future(self._to_client())
        try:
            await asyncio.wait((from_client, to_client), return_when=asyncio.FIRST_COMPLETED)
            if not from_client.done():
                await asyncio.wait((from_client,), timeout=_CLOSE_SECONDS)
        finally:
            for task in (from_client, to_client):
                task.cancel()
            await asyncio.gather(from_client, to_client, return_exceptions=True)
            self._plain.close()

    async def _flush(self) -> None:
        """Send the output of the codec, with its records in order."""
        async with self._sending:
            while data := self._codec.outgoing():
                await self._loop.sock_sendall(self._client, data)

    async def _from_client(self) -> None:
        plain_open = True  # the plain side still reads
        try:
            while True:
                while chunk := self._codec.read():
                    plain_open = plain_open and await self._forward(chunk)
                await self._flush()  # an answer of the TLS protocol
                if self._codec.ended and plain_open:
                    plain_open = False
                    self._plain.shutdown(socket.SHUT_WR)
                data = await self._loop.sock_recv(self._client, tls.CHUNK_SIZE)
                if not data:
                    return
                if not self._codec.ended:
                    self._codec.feed(data)
        except TlsError:
            await self._flush()
        except OSError:
            return  # the client is gone

    async def _forward(self, chunk: bytes) -> bool:
        try:
            await self._loop.sock_sendall(self._plain, chunk)
        except OSError:
            return False
        return True

    async def _to_client(self) -> None:
        try:
            while data := await self._loop.sock_recv(self._plain, tls.CHUNK_SIZE):
                self._codec.write(data)
                await self._flush()
        except ConnectionResetError:
            pass  # the plain side closed with unread input; its output was read before
        except (OSError, TlsError):
            return
        try:
            self._codec.end()
        except TlsError:
            pass  # the client sent more, which is dropped
        try:
            await self._flush()
            self._client.shutdown(socket.SHUT_WR)
        except OSError:
            return
