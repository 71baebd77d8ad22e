"""Clients that follow logs: each is given to one process, which runs while there are any."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

import msgspec

from jaula.errors import Unavailable
from jaula.logs.follower import BEGIN, COMPLETE, EXITED, OPEN, FollowRequest
from jaula.runtime import seqpacket

_SEND_INTERVAL = 0.005  # seconds between two attempts to send to a full socket
_SEND_ATTEMPTS = 1000
_MAX_MESSAGE = 64  # bytes


class LogFollowers:
    """The connection to the process that follows logs.

    ``fork`` starts the process and returns the engine's end of its socket.
    """

    def __init__(self, fork: Callable[[], Awaitable[socket.socket]]) -> None:
        self._fork = fork
        self._process: socket.socket | None = None
        self._forking = asyncio.Lock()
        self._clients = 0

    async def follow(
        self,
        request: FollowRequest,
        client: int,
        exited: asyncio.Event,
        begin: Callable[[], Awaitable[None]],
    ) -> bool:
        """Let the process send a log to ``client``, which is closed here in every case.

        ``begin`` is awaited when the log is open and before anything of it is sent. Return when the
        client has everything up to ``exited`` (True), or is gone (False). Cancelling it ends the
        output.

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
                ours.setblocking(False)
                if await _message(ours) != OPEN:
                    raise Unavailable("the process that follows logs has ended", hint="try again")
                await begin()
                ours.send(BEGIN, socket.MSG_NOSIGNAL)
                return await _ended(ours, exited)
        except BrokenPipeError:
            return False  # it was killed
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
    ended = asyncio.ensure_future(_message(control))
    waiting = asyncio.ensure_future(exited.wait())
    try:
        await asyncio.wait((ended, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            with contextlib.suppress(BrokenPipeError):
                control.send(EXITED, socket.MSG_NOSIGNAL)
        return await ended == COMPLETE
    finally:
        for task in (ended, waiting):
            task.cancel()
        await asyncio.gather(ended, waiting, return_exceptions=True)


async def _message(control: socket.socket) -> bytes:
    """Wait for a message of the process; empty if it has closed the socket."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(
        control.fileno(), lambda: None if readable.done() else readable.set_result(None)
    )
    try:
        await readable
    finally:
        loop.remove_reader(control.fileno())
    with contextlib.suppress(ConnectionResetError):
        return control.recv(_MAX_MESSAGE)
    return b""
