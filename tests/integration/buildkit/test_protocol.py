"""BuildKit's protocol without its clients: raw calls, hostile sessions, clients that leave."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import git_server
from harness.content_service import ContentService, digest_of
from harness.engine import PrivateEngine
from jaula.features.build.buildkit.proto import (
    content_pb2,
    control_pb2,
    gateway_pb2,
    ops_pb2,
    session_pb2,
    types_pb2,
)
from jaula.grpc.grpc_client import Channel
from jaula.grpc.grpc_server import Call, Method, Server
from jaula.grpc.grpc_status import GrpcError
from jaula.grpc.http2_connection import Limits
from jaula.images.reference import parse
from jaula.spec.protobuf import decoder

CONTENT = "/containerd.services.content.v1.Content/"
CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
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


def directory(files: Files, *, packets: list[session_pb2.Packet] | None = None) -> Method:
    """Return a file service with one flat directory; or one that sends other packets."""

    async def serve(call: Call) -> AsyncIterator[session_pb2.Packet]:
        if packets is not None:
            for packet in packets:
                yield packet
            await call.receive()
            return
        only = call.headers.get("followpaths", "")  # the last of several
        names = sorted(name for name in files if not only or only.lower().startswith(name.lower()))
        for name in names:
            yield session_pb2.Packet(
                stat=session_pb2.Stat(path=name.encode(), mode=0o644, size=len(files[name]))
            )
        yield session_pb2.Packet()
        while (packet := await call.receive()) is not None:
            if packet.type == session_pb2.Packet.PACKET_FIN:
                yield packet
                return
            content = files[names[packet.ID]]
            yield session_pb2.Packet(
                type=session_pb2.Packet.PACKET_DATA, ID=packet.ID, data=content
            )
            yield session_pb2.Packet(type=session_pb2.Packet.PACKET_DATA, ID=packet.ID)

    return Method(decoder(session_pb2.Packet), streaming=serve)


def solve(session: str = "", **fields: Any) -> control_pb2.SolveRequest:
    attributes = {"filename": "Dockerfile"}
    return control_pb2.SolveRequest(
        Ref=secrets.token_hex(8),
        Session=session,
        Frontend="dockerfile.v0",
        FrontendAttrs=attributes,
        **fields,
    )


async def solved(channel: Channel, request: control_pb2.SolveRequest) -> dict[str, str]:
    answer = await channel.unary(
        CONTROL + "Solve", request, decoder(control_pb2.SolveResponse), timeout=60
    )
    return dict(answer.ExporterResponse)


async def history(channel: Channel, ref: str) -> list[control_pb2.BuildHistoryRecord]:
    stream = channel.open(CONTROL + "ListenBuildHistory")
    asked = control_pb2.BuildHistoryRequest(Ref=ref, EarlyExit=True)
    await stream.send(asked.SerializeToString())
    stream.end()
    records = []
    while (message := await stream.receive()) is not None:
        records.append(control_pb2.BuildHistoryEvent.FromString(message).record)
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
                CONTROL + "Info", control_pb2.InfoRequest(), decoder(control_pb2.InfoResponse), 10
            )
            assert answer.buildkitVersion.package == "jaula"

    run(work)


def test_a_graph_of_operations_is_refused(engine: PrivateEngine) -> None:
    source = ops_pb2.Op(source=ops_pb2.SourceOp(identifier="docker-image://x")).SerializeToString()
    request = control_pb2.SolveRequest(Ref="r", Definition=ops_pb2.Definition(ops=[source]))

    async def work() -> None:
        async with control_channel(engine) as channel:
            with pytest.raises(GrpcError, match="LLB definitions are not supported"):
                await solved(channel, request)

    run(work)


def test_the_progress_of_a_build_that_failed_at_once_is_read(engine: PrivateEngine) -> None:
    request = solve("0" * 32, Exporters=[control_pb2.Exporter(Type="image", Attrs={"name": "A B"})])

    async def work() -> None:
        async with control_channel(engine) as channel:
            with pytest.raises(GrpcError, match="invalid reference"):
                await solved(channel, request)
            status = channel.open(CONTROL + "Status")
            await status.send(control_pb2.StatusRequest(Ref=request.Ref).SerializeToString())
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
            export = control_pb2.Exporter(Type="image", Attrs={"name": name, "push": "true"})
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

    async def secret(
        call: Call, request: session_pb2.GetSecretRequest
    ) -> session_pb2.GetSecretResponse:
        return session_pb2.GetSecretResponse(data=b"value of " + request.ID.encode())

    methods = {
        SYNC: directory(files),
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": Method(
            decoder(session_pb2.GetSecretRequest), unary=secret
        ),
    }

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            request = solve(id, Exporters=[control_pb2.Exporter(Type="image")])
            status = channel.open(CONTROL + "Status")
            await status.send(control_pb2.StatusRequest(Ref=request.Ref).SerializeToString())
            status.end()
            response = await solved(channel, request)
            image = response["containerimage.config.digest"]
            assert engine.request("DELETE", f"/images/{image}").status == 200
            logs = b""
            while (message := await status.receive()) is not None:
                for log in control_pb2.StatusResponse.FromString(message).logs:
                    logs += log.msg
            assert b"value of s" in logs
            status.close()
            (record,) = await history(channel, request.Ref)
            assert record.numTotalSteps == 3 and not record.HasField("error")
            assert record.ExporterResponse["containerimage.config.digest"] == image
            async with control_channel(engine) as later:  # buildx history logs
                status = later.open(CONTROL + "Status")
                await status.send(control_pb2.StatusRequest(Ref=request.Ref).SerializeToString())
                status.end()
                stored = control_pb2.StatusResponse.FromString(await status.receive() or b"")
                assert await status.receive() is None
                status.close()
                assert b"value of s" in b"".join(log.msg for log in stored.logs)
                steps = [vertex.name for vertex in stored.vertexes]
                assert f"[1/3] FROM {parse(busybox).canonical}" in steps
            update = control_pb2.UpdateBuildHistoryRequest(Ref=request.Ref, Delete=True)
            answer = decoder(control_pb2.UpdateBuildHistoryResponse)
            await channel.unary(CONTROL + "UpdateBuildHistory", update, answer, 10)
            assert await history(channel, request.Ref) == []

    run(work)


async def content(channel: Channel, digest: str, offset: int = 0, size: int = 0) -> bytes:
    stream = channel.open(CONTENT + "Read")
    request = content_pb2.ReadContentRequest(digest=digest, offset=offset, size=size)
    await stream.send(request.SerializeToString())
    stream.end()
    data = b""
    try:
        while (message := await stream.receive()) is not None:
            data += content_pb2.ReadContentResponse.FromString(message).data
    finally:
        stream.close()
    return data


def test_the_provenance_of_a_build_is_read_from_the_history(engine: PrivateEngine) -> None:
    methods = {SYNC: directory({"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": b"x"})}
    info = decoder(content_pb2.InfoResponse)

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            request = solve(id)
            request.FrontendAttrs["platform"] = "linux/amd64,linux/arm64"
            await solved(channel, request)
            (record,) = await history(channel, request.Ref)
            assert sorted(record.Results) == ["linux/amd64", "linux/arm64"]
            (described,) = record.Results["linux/arm64"].Attestations
            asked = content_pb2.InfoRequest(digest=described.digest)
            answer = await channel.unary(CONTENT + "Info", asked, info, 10)
            data = await content(channel, described.digest)
            assert len(data) == described.size == answer.info.size
            assert "sha256:" + hashlib.sha256(data).hexdigest() == described.digest
            assert b'"buildDefinition"' in data
            assert await content(channel, described.digest, 5, 7) == data[5:12]
            assert await content(channel, described.digest, -1, 2**62) == data
            assert await content(channel, described.digest, 2**62, 1) == b""
            update = control_pb2.UpdateBuildHistoryRequest(Ref=request.Ref, Delete=True)
            removed = decoder(control_pb2.UpdateBuildHistoryResponse)
            await channel.unary(CONTROL + "UpdateBuildHistory", update, removed, 10)
            for digest in (described.digest, "", "../../etc/passwd", "sha256:" + "0" * 64):
                with pytest.raises(GrpcError, match="not found"):
                    await content(channel, digest)
                with pytest.raises(GrpcError, match="not found"):
                    await channel.unary(
                        CONTENT + "Info", content_pb2.InfoRequest(digest=digest), info, 10
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
            request = solve(id, Exporters=[control_pb2.Exporter(Type="image")])
            request.FrontendAttrs.update(attributes)
            with pytest.raises(GrpcError, match=text):
                await solved(channel, request)

    run(work)
    assert engine.request("GET", "/images/json?all=1").json() == before


def test_several_platforms_are_not_a_docker_archive(engine: PrivateEngine) -> None:
    methods = {SYNC: directory({"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": b"x"})}

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            request = solve(id, Exporters=[control_pb2.Exporter(Type="docker")])
            request.FrontendAttrs["platform"] = "linux/amd64,linux/arm64"
            text = "docker exporter does not currently support exporting manifest lists"
            with pytest.raises(GrpcError, match=text):
                await solved(channel, request)

    run(work)


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_archive_is_written_into_a_store_of_the_client(engine: PrivateEngine, kind: str) -> None:
    service = ContentService({"export": {}})
    files = {"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": secrets.token_bytes(8)}
    methods = {SYNC: directory(files), **service.methods()}
    attributes = {"tar": "false", "name": "a:1", "annotation-manifest-descriptor.x": "y"}
    export = control_pb2.Exporter(Type=kind, Attrs=attributes)
    responses = []

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            responses.append(await solved(channel, solve(id, Exporters=[export])))
        service.stores.clear()  # a client that offers no store
        async with control_channel(engine) as channel, session(engine, methods) as id:
            with pytest.raises(GrpcError, match="unknown store"):
                await solved(channel, solve(id, Exporters=[export]))

    store = service.stores["export"]
    run(work)
    descriptor = json.loads(base64.b64decode(responses[0]["containerimage.descriptor"]))
    assert descriptor["annotations"] == {"x": "y"}
    assert responses[0]["containerimage.digest"] == descriptor["digest"]
    assert responses[0]["image.name"] == "docker.io/library/a:1"
    manifest = json.loads(store[descriptor["digest"]])
    parts = [descriptor, manifest["config"], *manifest["layers"]]
    assert {part["digest"]: part["size"] for part in parts} == {
        digest: len(data) for digest, data in store.items()
    }
    assert all(digest_of(data) == digest for digest, data in store.items())


def test_an_annotation_does_not_disguise_an_image_as_an_attestation(
    engine: PrivateEngine,
) -> None:
    methods = {SYNC: directory({"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": b"x"})}
    attributes = {
        "name": "disguised:1",
        "annotation-manifest-descriptor.vnd.docker.reference.type": "attestation-manifest",
        "annotation-manifest-descriptor.vnd.docker.reference.digest": "sha256:" + "0" * 64,
    }
    before = engine.request("GET", "/images/json?all=1").json()

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            export = control_pb2.Exporter(Type="image", Attrs=attributes)
            request = solve(id, Exporters=[export])
            request.FrontendAttrs["platform"] = "linux/amd64,linux/arm64"
            with pytest.raises(GrpcError, match="reserved for attestations"):
                await solved(channel, request)

    run(work)
    assert engine.request("GET", "/images/json?all=1").json() == before


def stat(path: bytes, mode: int = 0o644, **more: Any) -> session_pb2.Packet:
    return session_pb2.Packet(stat=session_pb2.Stat(path=path, mode=mode, size=1, **more))


@pytest.mark.parametrize(
    "packets",
    [
        [stat(b"../x"), session_pb2.Packet()],
        [stat(b"/etc/x"), session_pb2.Packet()],
        [stat(b"b"), stat(b"a")],
        [stat(b"l", 1 << 27, linkname=b"/etc"), stat(b"l/x"), session_pb2.Packet()],
        [session_pb2.Packet(type=session_pb2.Packet.PACKET_DATA, ID=7, data=b"x")],
        [session_pb2.Packet(type=session_pb2.Packet.PACKET_ERR, data=b"no")],
        [session_pb2.Packet(type=session_pb2.Packet.PACKET_FIN)],
    ],
)
def test_a_hostile_directory_fails_the_build_only(
    engine: PrivateEngine, packets: list[session_pb2.Packet]
) -> None:
    async def work() -> None:
        methods = {SYNC: directory({}, packets=packets)}
        async with control_channel(engine) as channel, session(engine, methods) as id:
            with pytest.raises(GrpcError):
                await solved(channel, solve(id))
            answer = await channel.unary(
                CONTROL + "Info", control_pb2.InfoRequest(), decoder(control_pb2.InfoResponse), 10
            )
            assert answer.buildkitVersion.version

    run(work)


def test_a_secret_that_is_too_large_fails_the_build(engine: PrivateEngine, busybox: str) -> None:
    text = f"FROM {busybox}\nRUN --mount=type=secret,id=s true\n".encode()

    async def secret(
        call: Call, request: session_pb2.GetSecretRequest
    ) -> session_pb2.GetSecretResponse:
        return session_pb2.GetSecretResponse(data=b"x" * 1_000_000)

    methods = {
        SYNC: directory({"Dockerfile": text}),
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": Method(
            decoder(session_pb2.GetSecretRequest), unary=secret
        ),
    }

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            with pytest.raises(GrpcError, match="larger than the limit"):
                await solved(channel, solve(id))

    run(work)


def metadata(engine: PrivateEngine, text: str, request: str, **more: str) -> dict[str, bytes]:
    """Return the answer about a Dockerfile, as buildx asks for it with ``--call``."""
    found: dict[str, bytes] = {}

    async def work() -> None:
        methods = {SYNC: directory({"Dockerfile": text.encode()})}
        async with control_channel(engine) as channel, session(engine, methods) as id:
            job = control_pb2.SolveRequest(Ref=secrets.token_hex(8), Session=id)
            running = asyncio.ensure_future(solved(channel, job))
            attributes = {
                "filename": "Dockerfile",
                "requestid": f"frontend.{request}",
                "frontend.caps": "moby.buildkit.frontend.subrequests+forward",
                **more,
            }
            asked = gateway_pb2.SolveRequest(Frontend="dockerfile.v0", FrontendOpt=attributes)
            stream = channel.open(BRIDGE + "Solve", [("buildkit-controlapi-buildid", job.Ref)])
            try:
                await stream.send(asked.SerializeToString())
                stream.end()
                answer = gateway_pb2.SolveResponse.FromString(await stream.receive() or b"")
                found.update(answer.result.metadata)
                assert not answer.result.HasField("ref")
            finally:
                stream.close()
                ended = channel.open(BRIDGE + "Return", [("buildkit-controlapi-buildid", job.Ref)])
                await ended.send(gateway_pb2.ReturnRequest().SerializeToString())
                ended.end()
                await ended.receive()
                ended.close()
            await running
            assert await history(channel, job.Ref) == []

    run(work)
    return found


def test_a_client_asks_about_a_dockerfile_without_a_build(
    engine: PrivateEngine, busybox: str
) -> None:
    text = f"# WHO is greeted\nARG WHO=you\nFROM {busybox} AS a\nARG WHO\nMAINTAINER me\n"
    outline = json.loads(metadata(engine, text, "outline")["result.json"])
    assert [argument["name"] for argument in outline["args"]] == ["WHO"]
    listed = json.loads(metadata(engine, text, "targets")["result.json"])
    assert [target["name"] for target in listed["targets"]] == ["a"]
    answer = metadata(engine, text, "lint")
    assert answer["result.statuscode"] == b"1" and answer["version"] == b"1.0.0"
    (warning,) = json.loads(answer["result.json"])["warnings"]
    assert warning["ruleName"] == "MaintainerDeprecated"
    broken = json.loads(metadata(engine, "FROM x\nRUNN\n", "lint")["result.json"])
    assert "unknown instruction" in broken["buildError"]["message"]
    described = json.loads(metadata(engine, text, "subrequests.describe")["result.json"])
    assert {r["name"] for r in described} >= {"frontend.outline", "frontend.targets"}
    for request, message in (("outline", "target stage"), ("other", "unsupported request")):
        with pytest.raises(GrpcError, match=message):
            metadata(engine, text, request, target="absent")


def source(address: str) -> ops_pb2.Definition:
    """Return the definition of a repository, as ``buildx bake URL`` sends it."""
    attributes = {"git.fullurl": address.partition("#")[0], "git.authtokensecret": "x"}
    git = ops_pb2.Op(
        source=ops_pb2.SourceOp(identifier=f"git://x/y.git#{address.partition('#')[2]}")
    )
    git.source.attrs.update(attributes)
    data = git.SerializeToString()
    last = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digest_of(data))])
    return ops_pb2.Definition(ops=[data, last.SerializeToString()])


async def bridge(channel: Channel, method: str, job: str, request: Any, answer: Any) -> Any:
    stream = channel.open(BRIDGE + method, [("buildkit-controlapi-buildid", job)])
    try:
        await stream.send(request.SerializeToString())
        stream.end()
        return answer.FromString(await stream.receive() or b"")
    finally:
        stream.close()


@pytest.mark.needs(git_server.BACKEND)
def test_files_of_a_repository_are_read_before_a_build(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    place = git_server.repository(tmp_path, "work", {"docker-bake.hcl": "text", "d/f": "below"})
    (place / "link").symlink_to("/etc/passwd")
    (place / "big").write_bytes(bytes(3 << 20))
    git_server.commit(place, {})
    git_server.bare(place, tmp_path / "top" / "r.git")
    work_directory = engine.root / "lib" / "build" / "work"

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, {}) as id:
            await channel.unary(  # makes the bridge
                CONTROL + "ListWorkers",
                control_pb2.ListWorkersRequest(),
                decoder(control_pb2.ListWorkersResponse),
                10,
            )
            gateway_address = f"10.199.{engine.index}.1"
            job = control_pb2.SolveRequest(Ref="bake", Session=id, Internal=True)
            running = asyncio.ensure_future(solved(channel, job))
            with git_server.served_as_files(tmp_path / "top", gateway_address) as (url, _):

                async def fetched(address: str) -> str:
                    request = gateway_pb2.SolveRequest(Definition=source(address))
                    answer = await bridge(
                        channel, "Solve", "bake", request, gateway_pb2.SolveResponse
                    )
                    return str(answer.result.ref.id)

                ref = await fetched(f"{url}/r.git#main")
                below = await fetched(f"{url}/r.git#main:d")
                with pytest.raises(GrpcError, match="has no branch"):
                    await fetched(f"{url}/r.git#absent")
            for address in ("http://127.0.0.1:1/r.git", "file:///etc", "ssh://-oProxyCommand=x/y"):
                with pytest.raises(
                    GrpcError, match=r"address of the host|not a valid (repository|URL)"
                ):
                    await fetched(address)

            async def read(ref: str, path: str, **part: int) -> bytes:
                request = gateway_pb2.ReadFileRequest(
                    Ref=ref, FilePath=path, Range=gateway_pb2.FileRange(**part)
                )
                answer = await bridge(
                    channel, "ReadFile", "bake", request, gateway_pb2.ReadFileResponse
                )
                return bytes(answer.Data)

            assert await read(ref, "docker-bake.hcl") == b"text"
            assert await read(ref, "d/f", Offset=1, Length=3) == b"elo"
            assert await read(ref, "d/f", Offset=100) == b""
            assert await read(below, "/f") == b"below"
            stat = gateway_pb2.StatFileRequest(Ref=ref, Path="docker-bake.hcl")
            answer = await bridge(channel, "StatFile", "bake", stat, gateway_pb2.StatFileResponse)
            assert answer.stat.size == 4
            for path in ("absent", "link", "d", "../../../../etc/passwd", "a\0b", "", "big"):
                with pytest.raises(
                    GrpcError, match=r"no such file|No such file|not a file|invalid|limit"
                ):
                    await read(ref, path)
            for wrong in ({"Offset": -1}, {"Length": -1}):
                with pytest.raises(GrpcError, match="not valid"):
                    await read(ref, "d/f", **wrong)
            with pytest.raises(GrpcError, match="no files of the reference"):
                await read("other", "d/f")
            assert len(os.listdir(work_directory)) == 2
            await bridge(
                channel, "Return", "bake", gateway_pb2.ReturnRequest(), gateway_pb2.ReturnResponse
            )
            await running

    run(work)
    deadline = time.monotonic() + 10
    while os.listdir(work_directory):
        assert time.monotonic() < deadline, os.listdir(work_directory)
        time.sleep(0.05)


def cached_run(engine: PrivateEngine, busybox: str) -> tuple[ContentService, str, bytes]:
    """Build a step with a local cache; return the client's stores and the cache's manifest."""
    service = ContentService({"local:/c": {}})
    text = f"FROM {busybox}\nRUN echo {secrets.token_hex(8)} > /made\n".encode()
    methods = {SYNC: directory({"Dockerfile": text}), **service.methods()}
    exports = [types_pb2.CacheOptionsEntry(Type="local", Attrs={"dest": "/c"})]
    described: list[str] = []

    async def work() -> None:
        async with control_channel(engine) as channel, session(engine, methods) as id:
            options = control_pb2.CacheOptions(Exports=exports)
            response = await solved(channel, solve(id, Cache=options))
            described.append(json.loads(response["cache.manifest"])["digest"])

    run(work)
    engine.request("POST", "/build/prune?all=1")
    return service, described[0], text


async def steps_cached(
    engine: PrivateEngine, service: ContentService, digest: str, text: bytes
) -> int:
    """Build with a local cache; return how many steps came from it."""
    methods = {SYNC: directory({"Dockerfile": text}), **service.methods()}
    imports = [types_pb2.CacheOptionsEntry(Type="local", Attrs={"src": "/c", "digest": digest})]
    async with control_channel(engine) as channel, session(engine, methods) as id:
        request = solve(id, Cache=control_pb2.CacheOptions(Imports=imports))
        await solved(channel, request)
        (record,) = await history(channel, request.Ref)
    await asyncio.to_thread(engine.request, "POST", "/build/prune?all=1")
    return int(record.numCachedSteps)


def test_a_cache_of_the_client_is_used_and_a_hostile_one_is_not(
    engine: PrivateEngine, busybox: str
) -> None:
    service, digest, text = cached_run(engine, busybox)
    store = service.stores["local:/c"]
    manifest = json.loads(store[digest])
    layer = manifest["layers"][0]["digest"]

    def changed(manifest: dict[str, Any]) -> str:
        data = json.dumps(manifest).encode()
        store[digest_of(data)] = data
        return digest_of(data)

    other = gzip.compress(b"no layer of this image")
    store[digest_of(other)] = other
    described = {**manifest["layers"][0], "digest": digest_of(other), "size": len(other)}
    hostile = [
        changed({**manifest, "layers": [described]}),  # another diff id
        changed({**manifest, "layers": manifest["layers"] * 2}),
        changed({**manifest, "layers": [{**manifest["layers"][0], "size": 7}]}),
        changed({**manifest, "config": manifest["layers"][0]}),
        changed({**manifest, "mediaType": "application/x"}),
        digest_of(b"absent"),
        "sha256:../../etc/passwd",
        "",
    ]

    async def work() -> None:
        assert await steps_cached(engine, service, digest, text) == 1
        for manifest_digest in hostile:
            assert await steps_cached(engine, service, manifest_digest, text) == 0
        genuine = store[layer]
        for damaged in (genuine[:-1], genuine + b"x", b"x" * len(genuine)):
            store[layer] = damaged
            assert await steps_cached(engine, service, digest, text) == 0
        store[layer] = genuine
        service.sizes[digest] = 1 << 40  # a document that would fill the memory
        assert await steps_cached(engine, service, digest, text) == 0

    run(work)


def test_a_cache_export_that_the_client_does_not_take_fails_unless_it_is_ignored(
    engine: PrivateEngine, busybox: str
) -> None:
    service = ContentService({})
    text = f"FROM {busybox}\nRUN echo {secrets.token_hex(8)} > /made\n".encode()
    methods = {SYNC: directory({"Dockerfile": text}), **service.methods()}

    async def work() -> None:
        for attributes, fails in (({}, True), ({"ignore-error": "true"}, False)):
            entry = types_pb2.CacheOptionsEntry(Type="local", Attrs={"dest": "/c", **attributes})
            async with control_channel(engine) as channel, session(engine, methods) as id:
                request = solve(id, Cache=control_pb2.CacheOptions(Exports=[entry]))
                if fails:
                    with pytest.raises(GrpcError, match="unknown store"):
                        await solved(channel, request)
                else:
                    assert "cache.manifest" not in await solved(channel, request)

    run(work)


@pytest.mark.parametrize("leave", ["grpc", "session"])
def test_a_client_that_leaves_in_the_middle_of_a_transfer_leaves_nothing(
    engine: PrivateEngine, busybox: str, leave: str
) -> None:
    text = f"FROM {busybox}\nCOPY . /all\n".encode()

    async def work() -> None:
        started = asyncio.Event()

        async def endless(call: Call) -> AsyncIterator[session_pb2.Packet]:
            if "followpaths" in call.headers:
                async for packet in flat.responses(call):
                    yield packet  # type: ignore[misc]
                return
            yield session_pb2.Packet(stat=session_pb2.Stat(path=b"a", mode=0o644, size=1 << 40))
            yield session_pb2.Packet()
            await call.receive()
            started.set()
            while True:
                yield session_pb2.Packet(
                    type=session_pb2.Packet.PACKET_DATA, ID=0, data=b"x" * 30_000
                )

        flat = directory({"Dockerfile": text})
        methods = {SYNC: Method(decoder(session_pb2.Packet), streaming=endless)}
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
            await history.send(control_pb2.BuildHistoryRequest().SerializeToString())
            await asyncio.sleep(0.2)
            began = time.monotonic()
            assert await asyncio.to_thread(own_engine.stop) == 0
            assert time.monotonic() - began < 4

    run(work)
