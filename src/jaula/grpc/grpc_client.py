"""The client's side of gRPC: calls on a connection that the peer has opened."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import TypeVar

from jaula.grpc.grpc_server import CONTENT_TYPE, Message
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.grpc.http2_connection import Connection, Limits, Stream

_Response = TypeVar("_Response")


class Channel:
    """The calls of one connection, on which the peer is the server."""

    def __init__(self, limits: Limits) -> None:
        self._connection = Connection(limits)

    async def run(self, sock: socket.socket, early: bytes = b"") -> None:
        """Carry the calls until the peer ends the connection."""
        await self._connection.run(sock, early)

    def close(self) -> None:
        """End the connection; all calls fail."""
        self._connection.close()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._connection.closed.wait()

    def open(self, path: str, metadata: Iterable[tuple[str, str]] = ()) -> Stream:
        """Begin a call. The caller closes the stream.

        :raises GrpcError: when the connection is lost.
        """
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", CONTENT_TYPE),
            *metadata,
        ]
        return self._connection.open_stream(headers)

    async def unary(
        self, path: str, request: Message, decode: Callable[[bytes], _Response], timeout: float
    ) -> _Response:
        """Send one request and return its response.

        :raises GrpcError: when the call failed, or has no answer after ``timeout`` seconds.
        """
        stream = self.open(path)
        try:
            async with asyncio.timeout(timeout):
                await stream.send(request.SerializeToString())
                stream.end()
                data = await stream.receive()
                if data is None:
                    raise GrpcError(Code.INTERNAL, "the answer of the call is empty")
                while await stream.receive() is not None:
                    pass  # an answer after the first is not used; the status follows it
        except TimeoutError:
            raise GrpcError(Code.DEADLINE_EXCEEDED, "the peer does not answer in time") from None
        finally:
            stream.close()
        try:
            return decode(data)
        except ValueError as error:
            raise GrpcError(Code.INTERNAL, f"the answer is not valid: {error}") from None
