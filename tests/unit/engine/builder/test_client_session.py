"""The engine's end of a build session, with correct and broken clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable
from jaula.features.build import session_protocol
from jaula.features.build.builder.client_session import ClientSession, ClientSessions
from jaula.features.build.session_protocol import SessionRequestKind

Client = Callable[[socket.socket], Awaitable[None]]
ID = "a" * 32


def talk(client: Client, ask: Callable[[ClientSession], Awaitable[None]]) -> None:
    async def test() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            session = ClientSession("0")
            serving = asyncio.ensure_future(session.run(ours, b""))
            speaking = asyncio.ensure_future(client(theirs))
            try:
                await asyncio.wait_for(ask(session), 10)
            finally:
                speaking.cancel()
                serving.cancel()
                await asyncio.gather(speaking, serving, return_exceptions=True)
                ours.close()

    asyncio.run(test())


async def _read(sock: socket.socket) -> tuple[SessionRequestKind, int, bytes]:
    loop = asyncio.get_running_loop()
    head = await loop.sock_recv(sock, session_protocol.HEADER_SIZE)
    kind, stream, length = session_protocol.decode_header(head)
    return kind, stream, await loop.sock_recv(sock, length) if length else b""


def answering(*frames: tuple[SessionRequestKind, bytes]) -> Client:
    async def client(sock: socket.socket) -> None:
        while True:
            _, stream, _ = await _read(sock)
            for kind, payload in frames:
                data = session_protocol.encode_frame(kind, stream, payload)
                await asyncio.get_running_loop().sock_sendall(sock, data)

    return client


def test_a_secret_is_read_until_the_end_frame() -> None:
    async def ask(session: ClientSession) -> None:
        assert await session.secret("s") == b"onetwo"
        assert await session.secret("s") == b"onetwo"

    talk(
        answering(
            (SessionRequestKind.DATA, b"one"),
            (SessionRequestKind.DATA, b"two"),
            (SessionRequestKind.END, b""),
        ),
        ask,
    )


def test_a_secret_that_the_client_does_not_have_is_none() -> None:
    async def ask(session: ClientSession) -> None:
        assert await session.secret("s") is None

    talk(answering((SessionRequestKind.FAIL, session_protocol.UNKNOWN.encode())), ask)


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (((SessionRequestKind.FAIL, b"it burns"),), Unavailable),
        (((SessionRequestKind.DATA, bytes(session_protocol.PAYLOAD_LIMIT)),) * 9, InvalidRequest),
    ],
)
def test_a_secret_that_fails_is_an_error(
    frames: tuple[tuple[SessionRequestKind, bytes], ...], error: type[JaulaError]
) -> None:
    async def ask(session: ClientSession) -> None:
        with pytest.raises(error):
            await session.secret("s")

    talk(answering(*frames), ask)


@pytest.mark.parametrize(
    "last",
    [b"", b"\xff" * 9, session_protocol.encode_frame(SessionRequestKind.DATA, 99, b"nobody's")],
)
def test_a_request_fails_when_the_client_leaves_or_breaks_the_protocol(last: bytes) -> None:
    async def client(sock: socket.socket) -> None:
        await _read(sock)
        await asyncio.get_running_loop().sock_sendall(sock, last)
        sock.shutdown(socket.SHUT_RDWR)

    async def ask(session: ClientSession) -> None:
        with pytest.raises(Unavailable):
            await session.secret("s")
        with pytest.raises(Unavailable):
            await session.open_stream(SessionRequestKind.SSH, "x")

    talk(client, ask)


def test_only_the_owner_finds_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        sessions = ClientSessions()
        ours, theirs = socket.socketpair()
        with theirs:
            serving = asyncio.ensure_future(sessions.serve(ID, "1000", ours.detach(), b""))
            assert (await sessions.find(ID, "1000")).owner == "1000"
            monkeypatch.setattr("jaula.features.build.builder.client_session._OPEN_TIMEOUT", 0.01)
            for id, owner in ((ID, "0"), ("b" * 32, "1000")):
                with pytest.raises(NotFound):
                    await sessions.find(id, owner)
        await asyncio.wait_for(serving, 10)
        with pytest.raises(NotFound):
            await sessions.find(ID, "1000")

    asyncio.run(test())


@pytest.mark.parametrize("id", ["", "short", "A" * 32, "a-" * 16, "a" * 65, "../" * 11])
def test_a_session_id_that_is_easy_to_guess_is_rejected(id: str) -> None:
    async def test() -> None:
        with pytest.raises(InvalidRequest):
            await ClientSessions().find(id, "0")

    asyncio.run(test())
