"""The engine as a client of a session: secrets, credentials, agents, uploads, results."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.features.build.buildkit import buildkit_session, session_stream
from jaula.features.build.buildkit.buildkit_session import LIMITS, ClientSession
from jaula.features.build.buildkit.proto import session_pb2
from jaula.grpc.grpc_client import Channel
from jaula.grpc.grpc_server import Call, Method, Server
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.grpc.http2_connection import Limits
from jaula.spec.api_documents import RegistryAuth
from jaula.spec.protobuf import decoder

SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
AUTH = "/moby.filesync.v1.Auth/Credentials"
AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
CHECK = "/moby.sshforward.v1.SSH/CheckAgent"
UPLOAD = "/moby.upload.v1.Upload/Pull"
SEND = "/moby.filesync.v1.FileSend/DiffCopy"

Test = Callable[[ClientSession], Awaitable[None]]


def asked(methods: dict[str, Method], test: Test) -> None:
    """Run a test with a session whose client has these methods."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            client = asyncio.ensure_future(Server(methods, Limits()).serve(theirs))
            channel = Channel(LIMITS)
            running = asyncio.ensure_future(channel.run(ours))
            session = ClientSession("0", "key", channel)
            try:
                await asyncio.wait_for(test(session), 20)
            finally:
                session.close()
                await running
                ours.close()
                await client

    asyncio.run(run())


def test_a_secret_that_is_missing_is_none() -> None:
    async def secret(
        call: Call, request: session_pb2.GetSecretRequest
    ) -> session_pb2.GetSecretResponse:
        if request.ID != "known":
            raise GrpcError(Code.NOT_FOUND, "no such secret")
        return session_pb2.GetSecretResponse(data=b"value")

    async def test(session: ClientSession) -> None:
        assert await session.secret("known") == b"value"
        assert await session.secret("other") is None

    asked({SECRET: Method(decoder(session_pb2.GetSecretRequest), unary=secret)}, test)


def test_a_client_without_a_service_has_nothing(tmp_path: Path) -> None:
    async def test(session: ClientSession) -> None:
        assert await session.secret("x") is None
        assert await session.credentials("docker.io") is None
        assert not await session.has_agent("default")
        with pytest.raises(InvalidRequest, match="no directory 'context'"):
            await session.receive_files("context", str(tmp_path), ("Dockerfile",))

    asked({}, test)


def test_credentials_are_those_of_the_registry() -> None:
    async def credentials(
        call: Call, request: session_pb2.CredentialsRequest
    ) -> session_pb2.CredentialsResponse:
        known = {
            "registry-1.docker.io": session_pb2.CredentialsResponse(Username="hub", Secret="p"),
            "example.org": session_pb2.CredentialsResponse(Secret="token"),
        }
        return known.get(request.Host, session_pb2.CredentialsResponse())

    async def test(session: ClientSession) -> None:
        hub = RegistryAuth(username="hub", password="p")
        assert await session.credentials("docker.io") == hub
        assert await session.credentials("example.org") == RegistryAuth(identity_token="token")
        assert await session.credentials("other.org") is None

    asked({AUTH: Method(decoder(session_pb2.CredentialsRequest), unary=credentials)}, test)


def test_the_agent_has_a_stream_in_both_directions() -> None:
    ids = []

    async def agent(call: Call) -> AsyncIterator[session_pb2.BytesMessage]:
        ids.append(call.headers["buildkit.ssh.id"])
        while (message := await call.receive()) is not None:
            yield session_pb2.BytesMessage(data=message.data.upper())

    async def check(
        call: Call, request: session_pb2.CheckAgentRequest
    ) -> session_pb2.CheckAgentResponse:
        if request.ID != "default":
            raise GrpcError(Code.UNKNOWN, "unset ssh forward key")
        return session_pb2.CheckAgentResponse()

    async def test(session: ClientSession) -> None:
        assert await session.has_agent("default")
        assert not await session.has_agent("other")
        stream = await session.open_agent("default")
        answers = stream.data()
        await stream.send(b"sign")
        assert await anext(answers) == b"SIGN"
        await stream.end()
        assert [part async for part in answers] == []
        stream.close()
        assert ids == ["default"]

    methods = {
        AGENT: Method(decoder(session_pb2.BytesMessage), streaming=agent),
        CHECK: Method(decoder(session_pb2.CheckAgentRequest), unary=check),
    }
    asked(methods, test)


def test_an_upload_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pull(call: Call) -> AsyncIterator[session_pb2.BytesMessage]:
        assert (call.headers["urlpath"], call.headers["urlhost"]) == ("/id", "buildkit-session")
        for _ in range(5):
            yield session_pb2.BytesMessage(data=b"x" * 1000)

    async def test(session: ClientSession) -> None:
        assert b"".join([part async for part in session.upload("/id")]) == b"x" * 5000
        monkeypatch.setattr(buildkit_session, "_UPLOAD_LIMIT", 3000)
        with pytest.raises(InvalidRequest, match="exceeds the limit"):
            async for _ in session.upload("/id"):
                pass

    asked({UPLOAD: Method(decoder(session_pb2.BytesMessage), streaming=pull)}, test)


async def chunks() -> AsyncIterator[bytes]:
    for number in range(40):
        yield bytes([number]) * 100_000


def test_a_file_is_sent_with_its_values() -> None:
    got = bytearray()
    headers = {}

    async def receive(call: Call) -> AsyncIterator[session_pb2.BytesMessage]:
        headers.update(call.headers)
        while (message := await call.receive()) is not None:
            got.extend(message.data)
        for message in list[session_pb2.BytesMessage]():
            yield message

    async def test(session: ClientSession) -> None:
        await session.send_file(3, {"image.name": "x:1"}, chunks())
        assert bytes(got) == b"".join(bytes([number]) * 100_000 for number in range(40))
        assert headers["buildkit-attachable-exporter-id"] == "3"
        assert headers["exporter-md-image.name"] == "x:1"

    asked({SEND: Method(decoder(session_pb2.BytesMessage), streaming=receive)}, test)


def test_a_client_that_refuses_a_file_fails_the_export() -> None:
    async def refuse(call: Call) -> AsyncIterator[session_pb2.BytesMessage]:
        raise GrpcError(Code.UNKNOWN, "disk is full")
        yield session_pb2.BytesMessage()

    async def test(session: ClientSession) -> None:
        with pytest.raises(Unavailable, match="disk is full"):
            await session.send_file(0, {}, chunks())

    asked({SEND: Method(decoder(session_pb2.BytesMessage), streaming=refuse)}, test)


def test_a_directory_is_sent_as_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"y" * 100_000)
    (tmp_path / "g").write_text("g")
    got: dict[int, bytes] = {}
    names = []

    async def receive(call: Call) -> AsyncIterator[session_pb2.Packet]:
        while (packet := await call.receive()) is not None and packet.HasField("stat"):
            names.append(packet.stat.path)
        for number in (2, 1):
            yield session_pb2.Packet(type=session_pb2.Packet.PACKET_REQ, ID=number)
        open_files = 2
        while open_files:
            packet = await call.receive()
            got[packet.ID] = got.get(packet.ID, b"") + packet.data
            open_files -= not packet.data
        yield session_pb2.Packet(type=session_pb2.Packet.PACKET_FIN)
        assert (await call.receive()).type == session_pb2.Packet.PACKET_FIN

    async def test(session: ClientSession) -> None:
        root = os.open(tmp_path, os.O_RDONLY)
        try:
            await session.send_directory(0, root, "", [])
        finally:
            os.close(root)
        assert names == [b"d", b"d/f", b"g"]
        assert got == {1: b"y" * 100_000, 2: b"g"}

    asked({SEND: Method(decoder(session_pb2.Packet), streaming=receive)}, test)


@pytest.mark.parametrize("number", [7, 0])
def test_a_directory_is_not_sent_to_a_client_that_asks_for_more(
    tmp_path: Path, number: int
) -> None:
    (tmp_path / "d").mkdir()

    async def receive(call: Call) -> AsyncIterator[session_pb2.Packet]:
        yield session_pb2.Packet(type=session_pb2.Packet.PACKET_REQ, ID=number)
        await asyncio.Event().wait()

    async def test(session: ClientSession) -> None:
        root = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(JaulaError, match="does not exist"):
                await session.send_directory(0, root, "", [])
        finally:
            os.close(root)

    asked({SEND: Method(decoder(session_pb2.Packet), streaming=receive)}, test)


def test_a_silent_client_fails_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(buildkit_session, "IDLE_TIMEOUT", 0.1)
    monkeypatch.setattr(session_stream, "IDLE_TIMEOUT", 0.1)
    monkeypatch.setattr(buildkit_session, "_CALL_TIMEOUT", 0.1)

    async def wait(call: Call) -> AsyncIterator[session_pb2.Packet]:
        await asyncio.Event().wait()
        yield session_pb2.Packet()

    async def silent(
        call: Call, request: session_pb2.GetSecretRequest
    ) -> session_pb2.GetSecretResponse:
        await asyncio.Event().wait()
        return session_pb2.GetSecretResponse()

    async def test(session: ClientSession) -> None:
        with pytest.raises(Unavailable):
            await session.secret("x")
        with pytest.raises(Unavailable, match="in time"):
            await session.receive_files("d", str(tmp_path), ())
        with pytest.raises(Unavailable, match="in time"):
            async for _ in session.upload("/x"):
                pass

    methods = {
        SECRET: Method(decoder(session_pb2.GetSecretRequest), unary=silent),
        "/moby.filesync.v1.FileSync/DiffCopy": Method(decoder(session_pb2.Packet), streaming=wait),
        UPLOAD: Method(decoder(session_pb2.BytesMessage), streaming=wait),
    }
    asked(methods, test)


def test_a_session_that_is_gone_says_so() -> None:
    async def test(session: ClientSession) -> None:
        session.close()
        with pytest.raises(Unavailable, match="session is gone"):
            await session.secret("x")
        with pytest.raises(Unavailable):
            await session.has_agent("default")

    asked({}, test)


def test_patterns_that_are_not_ascii_are_escaped(tmp_path: Path) -> None:
    headers = {}

    async def sync(call: Call) -> AsyncIterator[session_pb2.Packet]:
        headers.update(call.headers)
        raise GrpcError(Code.NOT_FOUND, "no access")
        yield session_pb2.Packet()

    async def test(session: ClientSession) -> None:
        async def report(document: object) -> None:
            return

        excluded = ("é b", "\udcff")
        with pytest.raises(InvalidRequest):
            await session.receive_directory("context", str(tmp_path), (), excluded, "", report)
        assert headers["exclude-patterns-encoded"] == "1"
        assert headers["exclude-patterns"] == "%FF"
        assert headers["dir-name"] == "context"

    asked(
        {
            "/moby.filesync.v1.FileSync/DiffCopy": Method(
                decoder(session_pb2.Packet), streaming=sync
            )
        },
        test,
    )
