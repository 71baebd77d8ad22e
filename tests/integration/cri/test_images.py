"""The image service over the facade of an engine in this process, and registries."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from harness.cri import Client, serve
from harness.registry import PASSWORD, USER, Registry, TokenServer, basic_auth
from harness.scripted_registry import ScriptedRegistry, config_of, digest, layer
from jaula.cgroups.null_driver import NullDriver
from jaula.config import EngineConfig, Paths
from jaula.daemon.create_engine import new_engine
from jaula.engine.authz.authorization_policy import AccessLevel, Policy, PolicyRule
from jaula.engine.authz.gateway import EngineApi, Gateway
from jaula.engine.engine import Engine
from jaula.features.kubernetes.cri.image_service import ImageService
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.runtime.runtime_client import Runtime
from jaula.spec.api_params import Peer
from jaula.state.audit_trail import AuditTrail

ROOT, READER = Peer(pid=1, uid=0, gid=0), Peer(pid=1, uid=4321, gid=4321)
POLICY = Policy(
    users={
        0: PolicyRule(name="[root]", access=AccessLevel.ALL),
        4321: PolicyRule(name="[user.reader]", access=AccessLevel.READ),
    }
)
Use = Callable[[Client], Awaitable[Any]]


class Host:
    """An engine of which only the images are used: without socket, zygote and cgroups."""

    def __init__(self, root: Path, policy_file: str = "") -> None:
        paths = Paths(root / "lib", root / "run")
        for path in (paths.root, paths.run):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
        word = f"jlt{os.urandom(4).hex()}"
        config = EngineConfig(
            paths=paths,
            policy=policy_file,
            storage_driver="vfs",
            bridge=f"{word}b",
            cgroup_parent=word,
        )
        self._engine_end, self._zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # No container is started, so no zygote is asked.
        runtime = Runtime(self._engine_end, os.getpid())
        self.paths = paths
        with mock.patch("jaula.cgroups.detect", return_value=NullDriver(None)):
            self.engine: Engine = new_engine(config, runtime)
        self.trail = AuditTrail(paths.audit_log)

    def close(self) -> None:
        self.engine.distribution.close()
        self.engine.services.database.close()
        assert self.engine.services.claims is not None
        self.engine.services.claims.release()
        self.trail.close()
        self._zygote.close()
        self._engine_end.close()

    def use(self, use: Use, peer: Peer = ROOT) -> Any:
        """Run ``use`` with a client whose connection has the identity of ``peer``."""

        async def run() -> Any:
            api: EngineApi = Gateway(self.engine, POLICY, self.trail).enter(peer)
            async with serve(ImageService(api).methods()) as client:
                return await use(client)

        return asyncio.run(run())

    def call(self, name: str, request: Any, response: type[Any], peer: Peer = ROOT) -> Any:
        return self.use(lambda client: client.call(name, request, response), peer)

    def pull(self, image: str, peer: Peer = ROOT, **auth: str) -> str:
        request = api_pb2.PullImageRequest(image=spec(image))
        if auth:
            request.auth.CopyFrom(api_pb2.AuthConfig(**auth))
        reply: api_pb2.PullImageResponse = self.call(
            "PullImage", request, api_pb2.PullImageResponse, peer
        )
        return reply.image_ref

    def images(self, image: str = "") -> list[api_pb2.Image]:
        request = api_pb2.ListImagesRequest(filter=api_pb2.ImageFilter(image=spec(image)))
        return list(self.call("ListImages", request, api_pb2.ListImagesResponse).images)

    def status(self, image: str, *, verbose: bool = False) -> api_pb2.ImageStatusResponse:
        request = api_pb2.ImageStatusRequest(image=spec(image), verbose=verbose)
        reply: api_pb2.ImageStatusResponse = self.call(
            "ImageStatus", request, api_pb2.ImageStatusResponse
        )
        return reply

    def remove(self, image: str, peer: Peer = ROOT) -> None:
        request = api_pb2.RemoveImageRequest(image=spec(image))
        self.call("RemoveImage", request, api_pb2.RemoveImageResponse, peer)

    def usage(self) -> api_pb2.FilesystemUsage:
        reply = self.call("ImageFsInfo", api_pb2.ImageFsInfoRequest(), api_pb2.ImageFsInfoResponse)
        [usage] = reply.image_filesystems
        assert list(reply.container_filesystems) == [usage]
        result: api_pb2.FilesystemUsage = usage
        return result


def spec(image: str) -> api_pb2.ImageSpec:
    return api_pb2.ImageSpec(image=image)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def refused(code: Code, function: Callable[..., object], *words: Any, **more: Any) -> str:
    with pytest.raises(GrpcError) as raised:
        function(*words, **more)
    assert raised.value.code is code, raised.value.message
    return raised.value.message


def test_an_image_is_pulled_listed_and_removed(host: Host) -> None:
    empty = host.usage()
    assert empty.fs_id.mountpoint == str(host.paths.root)
    assert os.path.isdir(empty.fs_id.mountpoint)
    data = layer("x", 100_000)
    config = config_of(data, config={"User": "1002:users", "Cmd": ["sh"]})
    with ScriptedRegistry(data, config=config) as registry:
        name = f"{registry.name}/box:1"
        assert not host.status(name).HasField("image")
        assert host.pull(name) == digest(config)
        [image] = host.images()
        assert image.id == digest(config)
        assert list(image.repo_tags) == [name]
        assert list(image.repo_digests) == [f"{registry.name}/box@{digest(registry.manifest)}"]
        assert image.uid.value == 1002
        assert image.size > 200_000  # as received and unpacked
        assert not image.pinned
        for ref in (name, image.id, image.id[7:19], image.repo_digests[0]):
            assert host.images(ref) == [image], ref
            assert host.status(ref).image == image, ref
        assert host.images("absent") == []
        info = json.loads(host.status(name, verbose=True).info["info"])
        assert info == {"chainID": digest(data), "imageSpec": json.loads(config)}
        used = host.usage()
        assert used.used_bytes.value - empty.used_bytes.value == image.size
        # the layer: its directory, fs, etc, two files, the document; manifest and configuration
        assert used.inodes_used.value - empty.inodes_used.value >= 8
        assert host.pull(name) == image.id
    host.remove(name)
    assert host.images() == []
    assert host.usage().used_bytes == empty.used_bytes
    assert host.usage().inodes_used == empty.inodes_used
    host.remove(name)
    host.remove(image.id)


def test_a_pull_by_digest_and_one_with_a_tag_too_mean_the_digest(host: Host) -> None:
    with ScriptedRegistry(layer()) as registry:
        manifest = digest(registry.manifest)
        path = f"/v2/box/manifests/{manifest}"
        registry.scripts[path] = lambda request: request.answer(
            200, registry.manifest, "application/vnd.oci.image.manifest.v1+json"
        )
        id = host.pull(f"{registry.name}/box@{manifest}")
        assert host.pull(f"{registry.name}/box:no-such-tag@{manifest}") == id
    [image] = host.images()
    assert list(image.repo_tags) == []
    assert list(image.repo_digests) == [f"{registry.name}/box@{manifest}"]
    assert host.status(f"{registry.name}/box:no-such-tag@{manifest}").image.id == id
    host.remove(f"{registry.name}/box@{manifest}")
    assert host.images() == []


@pytest.mark.parametrize("by", ["name", "id", "digest"])
def test_a_removal_takes_all_names(host: Host, by: str) -> None:
    with ScriptedRegistry(layer()) as registry:
        id = host.pull(f"{registry.name}/box:1")
    store = host.engine.services.images
    store.tag(id, "busybox:1")
    store.tag(id, "quay.example/team/app")
    [image] = host.images()
    assert sorted(image.repo_tags) == sorted(
        [
            "docker.io/library/busybox:1",
            "quay.example/team/app:latest",
            f"{registry.name}/box:1",
        ]
    )
    host.remove({"name": "busybox:1", "id": id, "digest": image.repo_digests[0]}[by])
    assert host.images() == []
    assert store.garbage() == ([], [])


def test_a_damaged_image_is_absent_until_it_is_pulled_again(tmp_path: Path) -> None:
    with ScriptedRegistry(layer()) as registry:
        name = f"{registry.name}/box:1"
        for _ in range(2):
            host = Host(tmp_path)  # the second one reads what the first one stored
            try:
                assert not host.status(name).HasField("image")
                assert host.images() == host.images(name) == []
                id = host.pull(name)
                assert host.status(name).image.id == id
                file = host.paths.images / "blobs" / id.replace(":", "/")
            finally:
                host.close()
            file.write_bytes(b"{}")
    host = Host(tmp_path)
    try:
        host.remove(name)
        assert host.engine.services.images.damaged() == {}
    finally:
        host.close()


class Record:
    """A container that runs from an image, as far as the images look at it."""

    def __init__(self, image: str) -> None:
        from jaula.state.container_records import Status

        self.id = "c" * 64
        self.record: Any = self
        self.images = (image,)
        self.status = Status.RUNNING


def test_an_image_in_use_is_pinned_and_stays_with_its_names(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedRegistry(layer()) as registry:
        id = host.pull(f"{registry.name}/box:1")
    store = host.engine.services.images
    store.tag(id, "busybox:1")
    monkeypatch.setattr(host.engine.services, "container_store", [Record(id)])
    [before] = host.images()
    assert before.pinned
    for ref in (id, "busybox:1"):
        text = refused(Code.FAILED_PRECONDITION, host.remove, ref)
        assert "is being used by running container cccccccccccc" in text
        assert host.images() == [before]


def test_a_password_is_needed_and_accepted_in_each_form(host: Host, tmp_path: Path) -> None:
    data = layer()
    with Registry(tmp_path / "registry", auth=basic_auth(tmp_path / "auth")) as registry:
        push(registry, data)
        name = f"{registry.name}/team/box:1"
        refused(Code.UNAUTHENTICATED, host.pull, name)
        refused(Code.UNAUTHENTICATED, host.pull, name, username=USER, password="wrong")
        elsewhere = "registry.example"
        refused(
            Code.UNAUTHENTICATED,
            *(host.pull, name),
            username=USER,
            password=PASSWORD,
            server_address=elsewhere,
        )
        refused(Code.INVALID_ARGUMENT, host.pull, name, auth="&&&")
        assert host.images() == []
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        for auth in (
            {"username": USER, "password": PASSWORD},
            {"auth": pair},
            {"auth": pair, "server_address": f"http://{registry.name}"},
        ):
            id = host.pull(name, **auth)
            assert id == digest(config_of(data))
            host.remove(id)
        auth = {"username": USER, "password": PASSWORD}
        refused(Code.NOT_FOUND, host.pull, f"{registry.name}/team/box:2", **auth)
        refused(Code.NOT_FOUND, host.pull, f"{registry.name}/absent", **auth)


def push(registry: Registry, data: bytes) -> None:
    """Store ``team/box:1`` with one layer, as the test user."""
    config = config_of(data)
    for content in (data, config):
        status, headers, body = registry.ask("POST", "/v2/team/box/blobs/uploads/")
        assert status == 202, body
        place = headers["location"].partition(registry.name)[2]
        mark = "&" if "?" in place else "?"
        status, _, body = registry.ask("PUT", f"{place}{mark}digest={digest(content)}", content)
        assert status == 201, body
    manifest = {
        "schemaVersion": 2,
        "mediaType": (kind := "application/vnd.oci.image.manifest.v1+json"),
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(config),
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(data),
                "size": len(data),
            }
        ],
    }
    status, _, body = registry.ask(
        *("PUT", "/v2/team/box/manifests/1", json.dumps(manifest).encode()),
        {"Content-Type": kind},
    )
    assert status == 201, body


def test_an_identity_token_is_exchanged(host: Host, tmp_path: Path) -> None:
    tokens = TokenServer(tmp_path / "tokens")
    try:
        with Registry(tmp_path / "registry", auth=tokens.auth()) as registry:
            name = f"{registry.name}/team/box:1"
            refused(Code.UNAUTHENTICATED, host.pull, name)
            text = refused(Code.NOT_FOUND, host.pull, name, identity_token="kept")
            assert "not found" in text
            assert tokens.seen[-1]["refresh_token"] == ["kept"]
            forged = host.pull, name
            refused(Code.UNAUTHENTICATED, *forged, registry_token="forged")
            refused(Code.INVALID_ARGUMENT, *forged, registry_token="a\r\nb")
    finally:
        tokens.close()


@pytest.mark.slow
def test_a_registry_that_does_not_answer_is_unavailable(host: Host) -> None:
    with ScriptedRegistry(layer()) as registry:
        registry.scripts["/v2/"] = lambda request: request.answer(503)
        registry.scripts["/v2/box/manifests/1"] = lambda request: request.answer(503)
        text = refused(Code.UNKNOWN, host.pull, f"{registry.name}/box:1")
        assert text.startswith("RegistryUnavailable: ")
    text = refused(Code.UNKNOWN, host.pull, "127.0.0.1:1/box:1")
    assert text.startswith("RegistryUnavailable: ")


def test_an_image_that_the_policy_refuses_is_a_failed_signature(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    key = tmp_path / "key.pub"
    subprocess.run(
        f"openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout -out {key}",
        shell=True,
        check=True,
        capture_output=True,
    )
    with ScriptedRegistry(layer()) as registry:
        policy.write_text(
            f'[images]\n"*" = "reject"\n"{registry.name}" = {{ signed-by = "{key}" }}\n'
        )
        policy.chmod(0o600)
        host = Host(tmp_path / "host", str(policy))
        try:
            text = refused(Code.UNKNOWN, host.pull, f"{registry.name}/box:1")
            assert text.startswith("SignatureValidationFailed: image ")
            text = refused(Code.UNKNOWN, host.pull, "registry.example/box:1")
            assert text.startswith("SignatureValidationFailed: image registry.example/box:1")
            assert host.images() == []
        finally:
            host.close()


def test_a_caller_that_may_only_read_changes_nothing(host: Host) -> None:
    with ScriptedRegistry(layer()) as registry:
        name = f"{registry.name}/box:1"
        refused(Code.PERMISSION_DENIED, host.pull, name, READER)
        assert registry.seen == []
        id = host.pull(name)
        refused(Code.PERMISSION_DENIED, host.remove, id, READER)
    request, response = api_pb2.ListImagesRequest(), api_pb2.ListImagesResponse
    assert [i.id for i in host.call("ListImages", request, response, READER).images] == [id]
    unknown = Peer(pid=1, uid=999, gid=999)
    for method, request in (
        ("ListImages", api_pb2.ListImagesRequest()),
        ("ImageStatus", api_pb2.ImageStatusRequest(image=spec(id))),
        ("ImageFsInfo", api_pb2.ImageFsInfoRequest()),
    ):
        refused(Code.PERMISSION_DENIED, host.call, method, request, response, unknown)


@pytest.mark.parametrize("end", ["call", "connection"])
def test_a_client_that_leaves_ends_its_pull(host: Host, end: str) -> None:
    begun, go_on = threading.Event(), threading.Event()
    data = layer("x", 1 << 20)
    with ScriptedRegistry(data) as registry:

        def stall(request: Any) -> None:
            request.head(200, Content_Length=str(len(data)))
            request.wfile.write(data[:1000])
            request.wfile.flush()
            begun.set()
            go_on.wait(30)

        registry.scripts[registry.blob_path(data)] = stall
        request = api_pb2.PullImageRequest(image=spec(f"{registry.name}/box:1"))

        async def leave(client: Client) -> None:
            call = asyncio.ensure_future(
                client.call("PullImage", request, api_pb2.PullImageResponse)
            )
            assert await asyncio.to_thread(begun.wait, 20)
            if end == "call":
                call.cancel()
            else:
                client.channel.close()
            await asyncio.wait((call,))

        try:
            host.use(leave)
        finally:
            go_on.set()
    assert host.images() == []
    assert host.engine.services.images.candidates() == ([], [])


def test_pulls_of_one_image_at_one_time_are_one_transfer(host: Host) -> None:
    data = layer("x", 1 << 20)
    second = threading.Event()
    with ScriptedRegistry(data) as registry:

        def answer_manifest(request: Any) -> None:
            if len(registry.asked("/manifests/")) == 2:
                second.set()
            registry.honest(request)

        def answer_layer(request: Any) -> None:
            assert second.wait(20)
            registry.honest(request)

        registry.scripts[registry.manifest_path] = answer_manifest
        registry.scripts[registry.blob_path(data)] = answer_layer
        request = api_pb2.PullImageRequest(image=spec(f"{registry.name}/box:1"))

        async def pull_twice(client: Client) -> list[Any]:
            calls = (client.call("PullImage", request, api_pb2.PullImageResponse) for _ in range(2))
            return await asyncio.gather(*calls)

        one, other = host.use(pull_twice)
        assert one.image_ref == other.image_ref == host.images()[0].id
        assert len(registry.asked(digest(data))) == 1
