"""BuildKit's protocol without its clients: raw calls, hostile sessions, clients that leave."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness.engine import PrivateEngine
from jaula.buildkit.messages import decoder
from jaula.buildkit.proto import content_pb2 as content_pb
from jaula.buildkit.proto import control_pb2 as control
from jaula.buildkit.proto import ops_pb2 as ops
from jaula.buildkit.proto import session_pb2 as pb
from jaula.grpc.client import Channel
from jaula.grpc.connection import Limits
from jaula.grpc.errors import GrpcError
from jaula.grpc.server import Call, Method, Server

CONTENT = "/containerd.services.content.v1.Content/"
CONTROL = "/moby.buildkit.v1.Control/"
SYNC = "/moby.filesync.v1.FileSync/DiffCopy"


async def upgraded(
    engine: PrivateEngine, path: str, headers: Mapping[str, str] = {}
) -> tuple[socket.socket, bytes]:
    """Return a connection after its upgrade, and the bytes that followed the answer."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, str(engine.socket))
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await loop.sock_recv(sock, 65536)
        assert chunk, data
        data += chunk
    head, _, early = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    return sock, early


@asynccontextmanager
async def control_channel(engine: PrivateEngine, *, prior: bool = False) -> AsyncIterator[Channel]:
    if prior:
        sock, early = socket.socket(socket.AF_UNIX), b""
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(engine.socket))
    else:
        sock, early = await upgraded(engine, "/grpc")
    with sock:
        channel = Channel(Limits())
        running = asyncio.ensure_future(channel.run(sock, early))
        try:
            yield channel
        finally:
            channel.close()
            await running


@asynccontextmanager
async def session(engine: PrivateEngine, methods: Mapping[str, Method]) -> AsyncIterator[str]:
    """Serve the calls of the engine; yield the id of the session."""
    id = secrets.token_hex(16)
    headers = {"X-Docker-Expose-Session-Uuid": id, "X-Docker-Expose-Session-Sharedkey": "key"}
    sock, early = await upgraded(engine, "/session", headers)
    serving = asyncio.ensure_future(Server(methods, Limits()).serve(sock, early))
    try:
        yield id
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        await serving
        sock.close()


Files = Mapping[str, bytes]


def directory(files: Files, *, packets: list[pb.Packet] | None = None) -> Method:
    """Return a file service with one flat directory; or one that sends other packets."""

    async def serve(call: Call) -> AsyncIterator[pb.Packet]:
        if packets is not None:
            for packet in packets:
                yield packet
            await call.receive()
            return
        only = call.headers.get("followpaths", "")  # the last of several
        names = sorted(name for name in files if not only or only.lower().startswith(name.lower()))
        for name in names:
            yield pb.Packet(stat=pb.Stat(path=name.encode(), mode=0o644, size=len(files[name])))
        yield pb.Packet()
        while (packet := await call.receive()) is not None:
            if packet.type == pb.Packet.PACKET_FIN:
                yield packet
                return
            content = files[names[packet.ID]]
            yield pb.Packet(type=pb.Packet.PACKET_DATA, ID=packet.ID, data=content)
            yield pb.Packet(type=pb.Packet.PACKET_DATA, ID=packet.ID)

    return Method(decoder(pb.Packet), streaming=serve)


def solve(session: str = "", **fields: Any) -> control.SolveRequest:
    attributes = {"filename": "Dockerfile"}
    return control.SolveRequest(
        Ref=secrets.token_hex(8),
        Session=session,
        Frontend="dockerfile.v0",
        FrontendAttrs=attributes,
        **fields,
    )


async def solved(channel: Channel, request: control.SolveRequest) -> dict[str, str]:
    answer = await channel.unary(
        CONTROL + "Solve", request, decoder(control.SolveResponse), timeout=60
    )
    return dict(answer.ExporterResponse)


async def history(channel: Channel, ref: str) -> list[control.BuildHistoryRecord]:
    stream = channel.open(CONTROL + "ListenBuildHistory")
    asked = control.BuildHistoryRequest(Ref=ref, EarlyExit=True)
    await stream.send(asked.SerializeToString())
    stream.end()
    records = []
    while (message := await stream.receive()) is not None:
        records.append(control.BuildHistoryEvent.FromString(message).record)
    stream.close()
    return records


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(work(), 60)

    asyncio.run(limited())


@pytest.mark.parametrize("prior", [False, True])
def test_the_engine_tells_its_version(engine: PrivateEngine, prior: bool) -> None:
    async def work() -> None:
        async with control_channel(engine, prior=prior) as channel:
            answer = await channel.unary(
                CONTROL + "Info", control.InfoRequest(), decoder(control.InfoResponse), 10
            )
            assert answer.buildkitVersion.package == "jaula"

    run(work)


def test_a_graph_of_operations_is_refused(engine: PrivateEngine) -> None:
    source = ops.Op(source=ops.SourceOp(identifier="docker-image://x")).SerializeToString()
    request = control.SolveRequest(Ref="r", Definition=ops.Definition(ops=[source]))

    async def work() -> None:
        async with control_channel(engine) as channel:
            with pytest.raises(GrpcError, match="LLB definitions are not supported"):
                await solved(channel, request)

    run(work)


def test_the_progress_of_a_build_that_failed_at_once_is_read(engine: PrivateEngine) -> None:
    request = solve("0" * 32, Exporters=[control.Exporter(Type="image", Attrs={"name": "A B"})])

    async def work() -> None:
        async with control_channel(engine) as channel:
            with pytest.raises(GrpcError, match="invalid reference"):
                await solved(channel, request)
            status = channel.open(CONTROL + "Status")
            await status.send(control.StatusRequest(Ref=request.Ref).SerializeToString())
            status.end()
            while await status.receive() is not None:
                pass
            status.close()

    run(work)


def test_a_push_to_a_registry_is_in_the_audit_log(engine: PrivateEngine, busybox: str) -> None:
    methods = {SYNC: directory({"Dockerfile": f"FROM {busybox}\nENV A=b\n".encode()})}
    name = "127.0.0.1:1/kit/x:1"

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            export = control.Exporter(Type="image", Attrs={"name": name, "push": "true"})
            with pytest.raises(GrpcError):
                await solved(channel, solve(id, Exporters=[export]))

    run(work)
    log = "".join(path.read_text() for path in (engine.root / "lib" / "audit").glob("*.log"))
    lines = [line for line in log.splitlines() if name in line]
    assert any("image push" in line for line in lines)
    assert any("image build" in line for line in lines)
    engine.request("DELETE", f"/images/{name}?force=1")


def test_a_build_without_a_session_fails(engine: PrivateEngine) -> None:
    async def work() -> None:
        async with control_channel(engine) as channel:
            with pytest.raises(GrpcError, match="random digits"):
                await solved(channel, solve("short"))

    run(work)


def test_a_client_made_of_python_builds(engine: PrivateEngine, busybox: str) -> None:
    text = f"FROM {busybox}\nCOPY a /a\nRUN --mount=type=secret,id=s cat /a /run/secrets/s\n"
    files = {"Dockerfile": text.encode(), "a": b"x" * 100_000}

    async def secret(call: Call, request: pb.GetSecretRequest) -> pb.GetSecretResponse:
        return pb.GetSecretResponse(data=b"value of " + request.ID.encode())

    methods = {
        SYNC: directory(files),
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": Method(
            decoder(pb.GetSecretRequest), unary=secret
        ),
    }

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            request = solve(id, Exporters=[control.Exporter(Type="image")])
            status = channel.open(CONTROL + "Status")
            await status.send(control.StatusRequest(Ref=request.Ref).SerializeToString())
            status.end()
            response = await solved(channel, request)
            image = response["containerimage.config.digest"]
            assert engine.request("DELETE", f"/images/{image}").status == 200
            logs = b""
            while (message := await status.receive()) is not None:
                for log in control.StatusResponse.FromString(message).logs:
                    logs += log.msg
            assert b"value of s" in logs
            status.close()
            (record,) = await history(channel, request.Ref)
            assert record.numTotalSteps == 3 and not record.HasField("error")
            assert record.ExporterResponse["containerimage.config.digest"] == image
            update = control.UpdateBuildHistoryRequest(Ref=request.Ref, Delete=True)
            answer = decoder(control.UpdateBuildHistoryResponse)
            await channel.unary(CONTROL + "UpdateBuildHistory", update, answer, 10)
            assert await history(channel, request.Ref) == []

    run(work)


async def content(channel: Channel, digest: str, offset: int = 0, size: int = 0) -> bytes:
    stream = channel.open(CONTENT + "Read")
    request = content_pb.ReadContentRequest(digest=digest, offset=offset, size=size)
    await stream.send(request.SerializeToString())
    stream.end()
    data = b""
    try:
        while (message := await stream.receive()) is not None:
            data += content_pb.ReadContentResponse.FromString(message).data
    finally:
        stream.close()
    return data


def test_the_provenance_of_a_build_is_read_from_the_history(engine: PrivateEngine) -> None:
    methods = {SYNC: directory({"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": b"x"})}
    info = decoder(content_pb.InfoResponse)

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            request = solve(id)
            request.FrontendAttrs["platform"] = "linux/amd64,linux/arm64"
            await solved(channel, request)
            (record,) = await history(channel, request.Ref)
            assert sorted(record.Results) == ["linux/amd64", "linux/arm64"]
            (described,) = record.Results["linux/arm64"].Attestations
            asked = content_pb.InfoRequest(digest=described.digest)
            answer = await channel.unary(CONTENT + "Info", asked, info, 10)
            data = await content(channel, described.digest)
            assert len(data) == described.size == answer.info.size
            assert "sha256:" + hashlib.sha256(data).hexdigest() == described.digest
            assert b'"buildDefinition"' in data
            assert await content(channel, described.digest, 5, 7) == data[5:12]
            assert await content(channel, described.digest, -1, 2**62) == data
            assert await content(channel, described.digest, 2**62, 1) == b""
            update = control.UpdateBuildHistoryRequest(Ref=request.Ref, Delete=True)
            removed = decoder(control.UpdateBuildHistoryResponse)
            await channel.unary(CONTROL + "UpdateBuildHistory", update, removed, 10)
            for digest in (described.digest, "", "../../etc/passwd", "sha256:" + "0" * 64):
                with pytest.raises(GrpcError, match="not found"):
                    await content(channel, digest)
                with pytest.raises(GrpcError, match="not found"):
                    await channel.unary(
                        CONTENT + "Info", content_pb.InfoRequest(digest=digest), info, 10
                    )

    run(work)


def test_blobs_of_images_are_not_content_of_the_history(
    engine: PrivateEngine, busybox: str
) -> None:
    image = engine.request("GET", f"/images/{busybox}/json").json()["Id"]

    async def work() -> None:
        async with control_channel(engine) as channel:
            with pytest.raises(GrpcError, match="not found"):
                await content(channel, image)

    run(work)


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"platform": "linux/amd64," * 40}, "exceed the limit"),
        ({"platform": "linux/amd64,a/b/c/d/e"}, "invalid platform"),
        ({"platform": "linux/amd64,windows/amd64", "attest:sbom": ""}, "windows"),
        ({"attest:provenance": "x" * 1_000_000}, "the limit is 4096"),
        ({"attest:sbom": "generator=example.org/scanner"}, "example.org/scanner"),
        ({"attest:\u20ac": ""}, "unknown attestation type"),
    ],
)
def test_platforms_and_attestations_that_are_not_valid_leave_no_image(
    engine: PrivateEngine, attributes: dict[str, str], text: str
) -> None:
    methods = {SYNC: directory({"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": b"x"})}
    before = engine.request("GET", "/images/json?all=1").json()

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            request = solve(id, Exporters=[control.Exporter(Type="image")])
            request.FrontendAttrs.update(attributes)
            with pytest.raises(GrpcError, match=text):
                await solved(channel, request)

    run(work)
    assert engine.request("GET", "/images/json?all=1").json() == before


def test_several_platforms_are_not_a_docker_archive(engine: PrivateEngine) -> None:
    methods = {SYNC: directory({"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": b"x"})}

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            request = solve(id, Exporters=[control.Exporter(Type="docker")])
            request.FrontendAttrs["platform"] = "linux/amd64,linux/arm64"
            text = "docker exporter does not currently support exporting manifest lists"
            with pytest.raises(GrpcError, match=text):
                await solved(channel, request)

    run(work)


def stat(path: bytes, mode: int = 0o644, **more: Any) -> pb.Packet:
    return pb.Packet(stat=pb.Stat(path=path, mode=mode, size=1, **more))


@pytest.mark.parametrize(
    "packets",
    [
        [stat(b"../x"), pb.Packet()],
        [stat(b"/etc/x"), pb.Packet()],
        [stat(b"b"), stat(b"a")],
        [stat(b"l", 1 << 27, linkname=b"/etc"), stat(b"l/x"), pb.Packet()],
        [pb.Packet(type=pb.Packet.PACKET_DATA, ID=7, data=b"x")],
        [pb.Packet(type=pb.Packet.PACKET_ERR, data=b"no")],
        [pb.Packet(type=pb.Packet.PACKET_FIN)],
    ],
)
def test_a_hostile_directory_fails_the_build_only(
    engine: PrivateEngine, packets: list[pb.Packet]
) -> None:
    async def work() -> None:
        methods = {SYNC: directory({}, packets=packets)}
        async with control_channel(engine) as channel, session(engine, methods) as id:
            with pytest.raises(GrpcError):
                await solved(channel, solve(id))
            answer = await channel.unary(
                CONTROL + "Info", control.InfoRequest(), decoder(control.InfoResponse), 10
            )
            assert answer.buildkitVersion.version

    run(work)


def test_a_secret_that_is_too_large_fails_the_build(engine: PrivateEngine, busybox: str) -> None:
    text = f"FROM {busybox}\nRUN --mount=type=secret,id=s true\n".encode()

    async def secret(call: Call, request: pb.GetSecretRequest) -> pb.GetSecretResponse:
        return pb.GetSecretResponse(data=b"x" * 1_000_000)

    methods = {
        SYNC: directory({"Dockerfile": text}),
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": Method(
            decoder(pb.GetSecretRequest), unary=secret
        ),
    }

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            with pytest.raises(GrpcError, match="larger than the limit"):
                await solved(channel, solve(id))

    run(work)


@pytest.mark.parametrize("leave", ["grpc", "session"])
def test_a_client_that_leaves_in_the_middle_of_a_transfer_leaves_nothing(
    engine: PrivateEngine, busybox: str, leave: str
) -> None:
    text = f"FROM {busybox}\nCOPY . /all\n".encode()

    async def work() -> None:
        started = asyncio.Event()

        async def endless(call: Call) -> AsyncIterator[pb.Packet]:
            if "followpaths" in call.headers:
                async for packet in flat.responses(call):
                    yield packet  # type: ignore[misc]
                return
            yield pb.Packet(stat=pb.Stat(path=b"a", mode=0o644, size=1 << 40))
            yield pb.Packet()
            await call.receive()
            started.set()
            while True:
                yield pb.Packet(type=pb.Packet.PACKET_DATA, ID=0, data=b"x" * 30_000)

        flat = directory({"Dockerfile": text})
        methods = {SYNC: Method(decoder(pb.Packet), streaming=endless)}
        async with control_channel(engine) as channel:
            async with session(engine, methods) as id:
                building = asyncio.ensure_future(solved(channel, solve(id)))
                await started.wait()
                await asyncio.sleep(0.2)
                if leave == "grpc":
                    channel.close()
            with pytest.raises(GrpcError):
                await building

    run(work)
    place = engine.root / "lib" / "build" / "work"
    deadline = time.monotonic() + 10
    while place.exists() and os.listdir(place):
        assert time.monotonic() < deadline, os.listdir(place)
        time.sleep(0.05)
    assert engine.request("GET", "/_ping").status == 200


def test_the_engine_stops_while_a_client_is_connected(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    own_engine = new_engine()

    async def work() -> None:
        async with control_channel(own_engine) as channel, session(own_engine, {}):
            history = channel.open(CONTROL + "ListenBuildHistory")
            await history.send(control.BuildHistoryRequest().SerializeToString())
            await asyncio.sleep(0.2)
            began = time.monotonic()
            assert await asyncio.to_thread(own_engine.stop) == 0
            assert time.monotonic() - began < 4

    run(work)
