"""The streams of exec, attach and port-forward, carried between the client and the engine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from jaula.features.kubernetes.authz import pods_api
from jaula.features.kubernetes.cri.streaming.socket_streams import copy_duplex, copy_streams
from jaula.spec.api_documents import ExecCreate
from jaula.spec.api_params import AttachOptions
from jaula.tasks import awaited_task

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi
    from jaula.features.kubernetes.cri.streaming.backend import Duplex, Size, Streams


class EngineStreams:
    """Carries requests out for one caller. A :class:`.streaming.backend.Backend`."""

    def __init__(self, engine: EngineApi) -> None:
        self._engine = engine

    async def exec(self, container_id: str, command: tuple[str, ...], streams: Streams) -> int:
        """Run a command in a container and return its exit status, after all of its output."""
        engine = self._engine
        body = ExecCreate(
            cmd=command,
            tty=streams.tty,
            attach_stdin=streams.stdin is not None,
            attach_stdout=streams.stdout is not None,
            attach_stderr=streams.stderr is not None,
        )
        exec_id = await engine.execs.create(container_id, body)
        finished = engine.execs.exit_future(exec_id)

        async def resize(size: Size) -> None:
            await engine.execs.resize(exec_id, size.rows, size.columns)

        ours, theirs = socket.socketpair()
        with ours:
            await engine.execs.start(exec_id, theirs.detach(), b"", False, streams.tty, None)
            await _carry(ours, streams, resize)
        return await finished

    async def attach(self, container_id: str, streams: Streams) -> None:
        """Attach to the first process of a container until it exits or the client leaves."""
        engine = self._engine
        options = AttachOptions(
            stream=True,
            stdin=streams.stdin is not None,
            stdout=streams.stdout is not None,
            stderr=streams.stderr is not None,
        )

        async def resize(size: Size) -> None:
            await engine.containers.resize(container_id, size.rows, size.columns)

        ours, theirs = socket.socketpair()
        with ours:
            await engine.containers.attach(container_id, theirs.detach(), options)
            await _carry(ours, streams, resize)

    async def port_forward(self, sandbox_id: str, port: int, stream: Duplex) -> None:
        """Connect a client to a port on the loopback interface of a pod."""
        with await self._engine.service(pods_api).connect(sandbox_id, port) as sock:
            await copy_duplex(sock, stream)


async def _carry(
    sock: socket.socket, streams: Streams, resize: Callable[[Size], Awaitable[None]]
) -> None:
    resizing = awaited_task(_resize(streams.resize, resize))
    try:
        await copy_streams(sock, streams, framed=not streams.tty)
    finally:
        resizing.cancel()
        await asyncio.wait((resizing,))


async def _resize(sizes: AsyncIterator[Size], resize: Callable[[Size], Awaitable[None]]) -> None:
    async for size in sizes:
        await resize(size)
