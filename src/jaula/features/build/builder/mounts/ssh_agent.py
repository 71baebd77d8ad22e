"""``RUN --mount=type=ssh``: a socket in the container that is forwarded to the client's ssh agent.

Each connection to it becomes a stream of the build session. The keys stay with the client: only the
agent protocol passes, and only while the step runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING

from jaula.errors import JaulaError
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.features.build.builder.build_session import AgentStream, BuildSession

log = logging.getLogger("jaula.build")

_DEFAULT_ID = "default"  # of --ssh without a name
_CHUNK = 1 << 14  # bytes
_MAX_CONNECTIONS = 64  # at a time


class SshAgent:
    """One forwarded socket."""

    def __init__(self, session: BuildSession, id: str, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._id = id
        self._loop = loop
        self._sock: socket.socket | None = None
        self._tasks = BackgroundTasks(log, "ssh agent of a build")

    def listen(self, path: str) -> None:
        """Start to serve at ``path``. Called from another thread than the loop's."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(sock, path)
            sock.listen(8)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._tasks.spawn(self._accept())

    async def _accept(self) -> None:
        assert self._sock is not None
        while True:
            client, _ = await self._loop.sock_accept(self._sock)
            if len(self._tasks) > _MAX_CONNECTIONS:
                client.close()
                continue
            self._tasks.spawn(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(JaulaError, OSError):
            client.setblocking(False)
            stream = await self._session.open_agent(self._id)
            try:
                to_client = asyncio.ensure_future(self._forward(client, stream))
                try:
                    async for data in stream.data():
                        await self._loop.sock_sendall(client, data)
                finally:
                    to_client.cancel()
                    with contextlib.suppress(asyncio.CancelledError, OSError, JaulaError):
                        await to_client
            finally:
                stream.close()

    async def _forward(self, client: socket.socket, stream: AgentStream) -> None:
        while data := await self._loop.sock_recv(client, _CHUNK):
            await stream.send(data)
        await stream.end()

    async def close(self) -> None:
        """Close all connections and the socket."""
        await self._tasks.close()
        if self._sock is not None:
            self._sock.close()


@contextlib.contextmanager
def ssh_agent(session: BuildSession, loop: asyncio.AbstractEventLoop, path: str) -> Iterator[None]:
    """Serve the client's default agent at a path. For work in another thread than the loop's."""
    agent = SshAgent(session, _DEFAULT_ID, loop)
    agent.listen(path)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(agent.close(), loop).result()


def _bind(sock: socket.socket, path: str) -> None:
    """Bind to a path of any length; a socket address has at most 107 bytes."""
    directory, name = os.path.split(path)
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{parent}/{name}")
    finally:
        os.close(parent)
