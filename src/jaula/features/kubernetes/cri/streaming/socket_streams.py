"""Copy between a socket of the engine and the streams of a client.

The socket is one end of a pair whose other end a shim has, or a TCP connection to a port of a pod.
A shim separates stdout and stderr by the headers of :mod:`jaula.spec.stdcopy`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from jaula.features.kubernetes.cri.streaming.backend import Duplex, Source, Streams
from jaula.features.kubernetes.cri.streaming.streaming_transport import FRAME_SIZE
from jaula.spec.stdcopy import STREAMS, StdcopyReader
from jaula.tasks import awaited_task


async def copy_streams(sock: socket.socket, streams: Streams, *, framed: bool) -> None:
    """Copy the streams of a command until ``sock`` ends its output. The caller closes ``sock``.

    ``framed`` output has stdout and stderr; other output is stdout. The end of stdin is a shutdown
    of ``sock`` for writing.

    :raises ClientGone: when the client does not read its output any more.
    """
    sock.setblocking(False)
    sinks = {STREAMS["stdout"]: streams.stdout, STREAMS["stderr"]: streams.stderr}
    reader = StdcopyReader()
    input_task = awaited_task(_send_stdin(sock, streams.stdin))
    try:
        while data := await _receive(sock):
            if not framed:
                if streams.stdout is not None:
                    await streams.stdout.write(data)
                continue
            for number, part in reader.feed(data):
                if (sink := sinks.get(number)) is not None:
                    await sink.write(part)
    finally:
        input_task.cancel()
        await asyncio.wait((input_task,))


async def copy_duplex(sock: socket.socket, stream: Duplex) -> None:
    """Copy bytes between two connections until both directions have ended.

    The caller closes ``sock``.

    :raises ClientGone: when the client does not read its output any more.
    """
    sock.setblocking(False)
    input_task = awaited_task(_send(sock, stream))
    try:
        while data := await _receive(sock):
            await stream.write(data)
        stream.end()
        await input_task
    finally:
        input_task.cancel()
        await asyncio.wait((input_task,))


async def _receive(sock: socket.socket) -> bytes:
    """Return the next bytes, b'' at the end. A reset is an end."""
    try:
        return await asyncio.get_running_loop().sock_recv(sock, FRAME_SIZE)
    except ConnectionResetError:
        return b""  # the other end closed with unread input; its output was read before


async def _send(sock: socket.socket, source: Source) -> None:
    """Send everything of a source, and its end, unless the other end is gone."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await source.read():
            await loop.sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)


async def _send_stdin(sock: socket.socket, source: Source | None) -> None:
    """Send stdin; drop it when the command does not read any more, so that the client goes on."""
    if source is None:
        return
    await _send(sock, source)
    while await source.read():
        pass
