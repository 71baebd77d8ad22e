"""Bytes between a TLS client and a plain socket of this host, one piece a way at a time.

A half-closed direction arrives as such on the other side (see :mod:`jaula.tls`): a client that has
finished its input still reads the answer. A client whose TCP stream ends is gone, and then the
plain socket is closed as a whole, so that the other end of the pair sees it.
"""

from __future__ import annotations

import asyncio
import socket

from jaula import tls
from jaula.tls import TlsCodec, TlsError

_FAREWELL_SECONDS = 2.0


class SocketPump:
    """One connection after its handshake. ``plain`` is closed here, ``client`` is not."""

    def __init__(self, client: socket.socket, codec: TlsCodec, plain: socket.socket) -> None:
        self._client = client
        self._codec = codec
        self._plain = plain
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Until the client is gone, or the plain side has said everything."""
        inward = asyncio.ensure_future(self._inward())
        outward = asyncio.ensure_future(self._outward())
        try:
            await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
            if not inward.done():
                await asyncio.wait((inward,), timeout=_FAREWELL_SECONDS)
        finally:
            for task in (inward, outward):
                task.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)
            self._plain.close()

    async def _flush(self) -> None:
        """Send what the codec has; records go out in the order in which they were made."""
        async with self._sending:
            while data := self._codec.outgoing():
                await self._loop.sock_sendall(self._client, data)

    async def _inward(self) -> None:
        listening = True  # the plain side takes what the client says
        try:
            while True:
                while piece := self._codec.read():
                    listening = listening and await self._given(piece)
                await self._flush()  # an answer of TLS itself
                if self._codec.ended and listening:
                    listening = False
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

    async def _given(self, piece: bytes) -> bool:
        try:
            await self._loop.sock_sendall(self._plain, piece)
        except OSError:
            return False
        return True

    async def _outward(self) -> None:
        try:
            while data := await self._loop.sock_recv(self._plain, tls.CHUNK_SIZE):
                self._codec.write(data)
                await self._flush()
        except ConnectionResetError:
            pass  # the plain side was closed with input unread: all that it said was read before
        except (OSError, TlsError):
            return
        try:
            self._codec.end()
        except TlsError:
            pass  # the client said more, which nobody will read
        try:
            await self._flush()
            self._client.shutdown(socket.SHUT_WR)
        except OSError:
            return
