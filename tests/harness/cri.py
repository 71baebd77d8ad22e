"""A CRI service over a socket pair, and a client of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from jaula.grpc.grpc_client import Channel
from jaula.grpc.grpc_server import Method, Server
from jaula.grpc.http2_connection import Limits
from jaula.spec.protobuf import decoder

IMAGES = "/runtime.v1.ImageService/"


class Client:
    """Calls of one connection; ``path`` is the service's."""

    def __init__(self, channel: Channel, path: str) -> None:
        self.channel = channel
        self._path = path

    async def call(self, name: str, request: Any, response: type[Any]) -> Any:
        """Make a unary call.

        :raises GrpcError: when it failed.
        """
        return await self.channel.unary(self._path + name, request, decoder(response), timeout=60)

    async def stream(self, name: str, request: Any, response: type[Any]) -> list[Any]:
        """Return all responses of a call."""
        stream = self.channel.open(self._path + name)
        try:
            await stream.send(request.SerializeToString())
            stream.end()
            responses = []
            while (data := await stream.receive()) is not None:
                responses.append(response.FromString(data))
            return responses
        finally:
            stream.close()


@asynccontextmanager
async def serve(methods: Mapping[str, Method], path: str = IMAGES) -> AsyncIterator[Client]:
    """Serve the methods, and yield a client of theirs."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        serving = asyncio.ensure_future(Server(methods, Limits()).serve(theirs))
        channel = Channel(Limits())
        running = asyncio.ensure_future(channel.run(ours))
        try:
            yield Client(channel, path)
        finally:
            channel.close()
            await running
            ours.close()
            await serving
