"""Clients that follow logs: each is given to one process, which runs while there are any."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

import msgspec

from jaula.errors import Unavailable
from jaula.logs.follower import COMPLETE, EXITED, FollowRequest
from jaula.runtime import seqpacket

_SEND_INTERVAL = 0.005  # seconds between two attempts to send to a full socket
_SEND_ATTEMPTS = 1000


class LogFollowers:
    """The connection to the process that follows logs.

    ``fork`` starts the process and returns the engine's end of its socket.
    """

    def __init__(self, fork: Callable[[], Awaitable[socket.socket]]) -> None:
        self._fork = fork
        self._process: socket.socket | None = None
        self._forking = asyncio.Lock()
        self._clients = 0

    async def follow(self, request: FollowRequest, client: int, exited: asyncio.Event) -> bool:
        """Let the process send a log to ``client``, which is closed here in every case.

        Return when the client has everything up to ``exited`` (True), or is gone (False).
        Cancelling it ends the output.

        :raises Unavailable: when there is no such process.
        """
        self._clients += 1
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours:
                try:
                    await self._send(msgspec.json.encode(request), (client, theirs.fileno()))
                finally:
                    theirs.close()
                    os.close(client)
                return await _ended(ours, exited)
        finally:
            self._clients -= 1
            if not self._clients and self._process is not None:
                self._process.close()  # the process exits
                self._process = None

    async def _send(self, data: bytes, fds: tuple[int, int]) -> None:
        for _ in range(_SEND_ATTEMPTS):
            async with self._forking:
                if self._process is None:
                    self._process = await self._fork()
            try:
                seqpacket.send(self._process, data, fds)
                return
            except BlockingIOError:
                await asyncio.sleep(_SEND_INTERVAL)
            except OSError:  # it was killed; its clients have noticed
                self._process.close()
                self._process = None
        raise Unavailable("the process that follows logs does not answer", hint="try again")


async def _ended(control: socket.socket, exited: asyncio.Event) -> bool:
    """Wait for the end of one client; tell the process when the container has exited."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    waiting = asyncio.ensure_future(exited.wait())
    control.setblocking(False)
    loop.add_reader(control.fileno(), lambda: None if ended.done() else ended.set_result(None))
    try:
        await asyncio.wait((ended, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            with contextlib.suppress(BrokenPipeError):
                control.send(EXITED, socket.MSG_NOSIGNAL)
            await ended
        with contextlib.suppress(ConnectionResetError):
            return control.recv(len(COMPLETE)) == COMPLETE
        return False
    finally:
        waiting.cancel()
        loop.remove_reader(control.fileno())
