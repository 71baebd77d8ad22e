"""Copies between a socket pair and the streams of a client."""

from __future__ import annotations

import asyncio
import socket

import pytest

from jaula.features.kubernetes.cri.streaming.backend import ClientGone, Streams
from jaula.features.kubernetes.cri.streaming.remotecommand import ResizeEvents
from jaula.features.kubernetes.cri.streaming.socket_streams import copy_duplex, copy_streams
from jaula.spec.stdcopy import frame
from unit.event_loop import idle


class Recorded:
    """A source of chunks and a sink."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.received = bytearray()
        self.ended = False
        self.gone = False

    async def read(self) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""

    async def write(self, data: bytes | memoryview) -> None:
        if self.gone:
            raise ClientGone
        self.received += data

    def end(self) -> None:
        self.ended = True


def streams_of(stdin: Recorded | None, stdout: Recorded, stderr: Recorded | None) -> Streams:
    return Streams(stdin=stdin, stdout=stdout, stderr=stderr, tty=False, resize=ResizeEvents(None))


def test_framed_output_is_separated() -> None:
    async def main() -> None:
        ours, shim = socket.socketpair()
        stdout, stderr = Recorded(), Recorded()
        with ours, shim:
            shim.sendall(frame("stdout", b"one ") + frame("stderr", b"two") + frame("stdout", b""))
            shim.sendall(frame("stdout", b"three")[:9])
            shim.sendall(frame("stdout", b"three")[9:])
            shim.shutdown(socket.SHUT_WR)
            await copy_streams(ours, streams_of(None, stdout, stderr), framed=True)
        assert (stdout.received, stderr.received) == (b"one three", b"two")

    asyncio.run(main())


def test_output_that_the_client_did_not_request_is_dropped() -> None:
    async def main() -> None:
        ours, shim = socket.socketpair()
        stdout = Recorded()
        with ours, shim:
            shim.sendall(frame("stderr", b"x") + frame("stdout", b"y"))
            shim.shutdown(socket.SHUT_WR)
            await copy_streams(ours, streams_of(None, stdout, None), framed=True)
        assert stdout.received == b"y"

    asyncio.run(main())


def test_the_end_of_stdin_is_a_shutdown() -> None:
    async def main() -> None:
        ours, shim = socket.socketpair()
        stdout = Recorded()
        loop = asyncio.get_running_loop()
        shim.setblocking(False)
        with ours:
            copying = asyncio.ensure_future(
                copy_streams(ours, streams_of(Recorded(b"in", b"put"), stdout, None), framed=False)
            )
            received = b""
            while data := await loop.sock_recv(shim, 100):
                received += data
            await loop.sock_sendall(shim, b"output")
            shim.close()
            await copying
        assert (received, stdout.received) == (b"input", b"output")

    asyncio.run(main())


def test_input_is_dropped_when_the_command_does_not_read_it() -> None:
    async def main() -> None:
        ours, shim = socket.socketpair()
        stdin = Recorded(*[b"x" * 100000] * 20)
        shim.shutdown(socket.SHUT_RD)
        with ours, shim:
            copying = asyncio.ensure_future(
                copy_streams(ours, streams_of(stdin, Recorded(), None), framed=False)
            )
            await idle()
            assert stdin.chunks == []
            assert not copying.done()
            shim.shutdown(socket.SHUT_WR)
            await copying

    asyncio.run(main())


def test_a_client_that_is_gone_ends_the_copy() -> None:
    async def main() -> None:
        ours, shim = socket.socketpair()
        stdout = Recorded()
        stdout.gone = True
        with ours, shim:
            shim.sendall(b"x")
            with pytest.raises(ClientGone):
                await copy_streams(ours, streams_of(None, stdout, None), framed=False)

    asyncio.run(main())


def test_both_directions_of_a_connection_end_on_their_own() -> None:
    async def main() -> None:
        ours, application = socket.socketpair()
        stream = Recorded(b"request")
        loop = asyncio.get_running_loop()
        application.setblocking(False)
        with ours, application:
            copying = asyncio.ensure_future(copy_duplex(ours, stream))
            received = b""
            while data := await loop.sock_recv(application, 100):
                received += data
            assert not stream.ended
            await loop.sock_sendall(application, b"answer")
            application.shutdown(socket.SHUT_WR)
            await copying
        assert (received, stream.received, stream.ended) == (b"request", b"answer", True)

    asyncio.run(main())
