"""The process that follows logs for clients, so that the engine does not read and format them.

The engine sends a request for each client, with the socket of the client and a control socket. On
the control socket the process says ``OPEN`` when it has opened the log, and the engine ``BEGIN``
when it has sent the head of the answer: a client may remove the container as soon as it has the
head. ``EXITED`` says that the container has exited; the rest of the log is sent then. ``COMPLETE``
says that everything was sent. End of file cancels the request. The process ends when the engine
closes its own socket.

A client that does not read costs nothing but the output that it has not read yet. The process has a
lower priority than the engine: a container can write faster than any client reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import msgspec

from jaula.logs.log_entry import LogEntry, Selection
from jaula.logs.pod_log import PodLog
from jaula.logs.reader.follow import follow
from jaula.spec import stdcopy

OPEN, COMPLETE = b"open", b"complete"  # of the process
BEGIN, EXITED = b"begin", b"exited"  # of the engine
_MAX_MESSAGE = 64 * 1024  # bytes
_NICE = 5  # nice(2)


class FollowRequest(msgspec.Struct, frozen=True):
    """A client that follows a log: a pod's, or the ``json-file`` log with a path.

    ``prefix`` is added to each line. ``framed`` separates stdout and stderr by stdcopy's headers.
    ``chunked`` is the transfer coding of the body (RFC 9112, 7.1).
    """

    log: str | PodLog
    selection: Selection
    tail: int | None = None
    timestamps: bool = False
    prefix: bytes = b""
    framed: bool = True
    chunked: bool = True

    def format(self, entries: list[LogEntry]) -> bytes:
        """Return the part of the body for some entries."""
        texts = []
        for entry in entries:
            text = self.prefix + entry.data
            if self.timestamps:
                text = entry.time.encode() + b" " + text
            texts.append(stdcopy.frame(entry.stream, text) if self.framed else text)
        data = b"".join(texts)
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data


def main(engine: socket.socket) -> None:
    """Serve until the engine closes its end."""
    os.nice(_NICE)
    asyncio.run(_serve(engine))


async def _serve(engine: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def receive() -> None:
        try:
            data, fds, _, _ = socket.recv_fds(
                engine, _MAX_MESSAGE, 2, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        if not data:
            loop.remove_reader(engine.fileno())
            closed.set()
            return
        client, control = (socket.socket(fileno=fd) for fd in fds)
        request = msgspec.json.decode(data, type=FollowRequest)
        task = loop.create_task(_follow(request, client, control))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_reader(engine.fileno(), receive)
    await closed.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(request: FollowRequest, client: socket.socket, control: socket.socket) -> None:
    """Send the log to one client until the container has exited."""
    loop = asyncio.get_running_loop()
    begun, exited = asyncio.Event(), asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def read_control() -> None:
        message = control.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT)
        if message == BEGIN:
            begun.set()
        elif message == EXITED:
            exited.set()
        else:
            loop.remove_reader(control.fileno())
            task.cancel()

    chosen = request.selection
    with client, control, contextlib.suppress(OSError):  # the client or the engine is gone
        client.setblocking(False)
        loop.add_reader(control.fileno(), read_control)
        batches = follow(
            request.log,
            exited,
            stdout=chosen.stdout,
            stderr=chosen.stderr,
            since=chosen.since,
            until=chosen.until,
            tail=request.tail,
            on_open=lambda: _say(control, OPEN),
        )
        try:
            async with contextlib.aclosing(batches):
                async for entries in batches:
                    await begun.wait()
                    await loop.sock_sendall(client, request.format(entries))
            await begun.wait()
            if request.chunked:
                await loop.sock_sendall(client, b"0\r\n\r\n")
            _say(control, COMPLETE)
        finally:
            loop.remove_reader(control.fileno())


def _say(control: socket.socket, message: bytes) -> None:
    control.send(message, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
