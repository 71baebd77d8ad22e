"""``RUN --mount=type=ssh``: a socket in the container that leads to the client's ssh agent.

Each connection to it becomes a stream of the build's session. The keys stay where they are: what
passes is the agent's protocol, and only while the step runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING

from jaula.errors import JaulaError
from jaula.spec.build_session import SessionRequestKind
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.engine.builder.client_session import ClientSession, SessionStream

log = logging.getLogger("jaula.build")

_USUAL = "default"  # the id of --ssh without a name
_PIECE = 1 << 14
_CONNECTIONS = 64  # at a time


class SshAgent:
    """One socket."""

    def __init__(self, session: ClientSession, id: str, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._id = id
        self._loop = loop
        self._sock: socket.socket | None = None
        self._tasks = BackgroundTasks(log, "ssh agent of a build")

    def listen(self, path: str) -> None:
        """Begin to serve at ``path``; from another thread."""
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
            if len(self._tasks) > _CONNECTIONS:
                client.close()
                continue
            self._tasks.spawn(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(JaulaError, OSError):
            client.setblocking(False)
            stream = await self._session.ask(SessionRequestKind.SSH, self._id)
            try:
                inward = asyncio.ensure_future(self._inward(client, stream))
                try:
                    async for data in stream.data():
                        await self._loop.sock_sendall(client, data)
                finally:
                    inward.cancel()
                    with contextlib.suppress(asyncio.CancelledError, OSError, JaulaError):
                        await inward
            finally:
                stream.close()

    async def _inward(self, client: socket.socket, stream: SessionStream) -> None:
        while data := await self._loop.sock_recv(client, _PIECE):
            await stream.send(data)
        await stream.end()

    async def close(self) -> None:
        """End all connections and the socket."""
        await self._tasks.close()
        if self._sock is not None:
            self._sock.close()


@contextlib.contextmanager
def listening(session: ClientSession, loop: asyncio.AbstractEventLoop, path: str) -> Iterator[None]:
    """The client's usual agent at a path, for work in another thread than the loop's."""
    agent = SshAgent(session, _USUAL, loop)
    agent.listen(path)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(agent.close(), loop).result()


def _bind(sock: socket.socket, path: str) -> None:
    """Bind to a path of any length: socket addresses end at 107 bytes."""
    directory, name = os.path.split(path)
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{parent}/{name}")
    finally:
        os.close(parent)
