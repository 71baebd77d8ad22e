"""Images of pods: the image policy, image volumes, mirrors, and what the kubelet may remove."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.images import directory, file, import_image, link
from harness.pods import Cri, calls, container_config, refused
from harness.registry import Registry
from harness.scripted_registry import ScriptedRegistry, layer
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code

pytestmark = pytest.mark.needs("docker-registry")


class Node(NamedTuple):
    """An engine with a policy, and a registry with a signed and an unsigned image."""

    engine: PrivateEngine
    registry: Registry
    policy: Path
    certs: Path

    def cli(self, *words: str) -> str:
        done = self.engine.cli(
            "jaula", *words, env=self.engine.environment() | {"COSIGN_PASSWORD": "a word"}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def name(self, path: str) -> str:
        return f"{self.registry.name}/{path}"


@pytest.fixture(scope="module")
def node(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    top = tmp_path_factory.mktemp("images")
    policy, certs = top / "policy.toml", top / "certs.d"
    policy.write_text("")
    flags = ("--cri", "--policy", str(policy), "--registry-certs", str(certs))
    pinned = ("--cri-pinned-image", "docker.io/library/pod-tool*")
    private = PrivateEngine((worker_index + 101) % 250 + 1, extra_flags=(*flags, *pinned))
    with Registry(top / "registry") as registry, leaks.nothing_left(private):
        load_image(private, "busybox")
        node = Node(private, registry, policy, certs)
        for path in ("signed:latest", "unsigned:latest"):
            # different images: a pull must not find the signature of another one
            repository = node.name(path).removesuffix(":latest")
            import_image(private, repository, [file(path.partition(":")[0]), directory("bin")])
            node.cli("push", "-q", node.name(path))
        node.cli("trust", "generate-key", str(top / "team"))
        node.cli("image", "sign", "--key", str(top / "team.key"), node.name("signed:latest"))
        node.cli("rmi", node.name("signed:latest"), node.name("unsigned:latest"))
        import_image(
            private,
            "pod-tool",
            [
                directory("data"),
                file("data/value", b"42\n"),
                link("inside", "data"),
                link("outside", "../../etc"),
                link("absolute", "/data"),
            ],
        )
        yield node


@pytest.fixture(autouse=True)
def no_rules(node: Node) -> Iterator[None]:
    node.policy.write_text("")
    yield
    node.policy.write_text("")


async def pull(cri: Cri, name: str) -> str:
    reply = await cri.image("PullImage", image=api_pb2.ImageSpec(image=name))
    return str(reply.image_ref)


async def create(cri: Cri, pod: str, config: api_pb2.ContainerConfig) -> str:
    created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
    return str(created.container_id)


def config_of(id: str, name: str) -> api_pb2.ContainerConfig:
    """Return a configuration as the kubelet sends it: the id, and the user's words beside it."""
    config = container_config("main", "sleep", "100")
    config.image.image, config.image.user_specified_image = id, name
    return config


def signed_rule(node: Node) -> str:
    key = node.policy.parent / "team.pub"
    return f'[images]\n"{node.registry.name}" = {{ signed-by = "{key}" }}\n'


def test_a_pull_needs_the_signature_that_the_policy_requires(node: Node) -> None:
    async def work(cri: Cri) -> None:
        node.policy.write_text(signed_rule(node))
        error = await refused(pull(cri, node.name("unsigned:latest")))
        assert error.code is Code.UNKNOWN
        assert error.message.startswith("SignatureValidationFailed: image ")
        assert "has no signature" in error.message
        status = await cri.image(
            "ImageStatus", image=api_pb2.ImageSpec(image=node.name("unsigned:latest"))
        )
        assert not status.HasField("image")
        id = await pull(cri, node.name("signed:latest"))
        pod = await cri.run_pod("signed")
        await create(cri, pod, config_of(id, node.name("signed:latest")))

    calls(node.engine, work)


def test_the_policy_of_the_moment_decides_at_creation_and_at_start(node: Node) -> None:
    async def work(cri: Cri) -> None:
        name = node.name("unsigned:latest")
        id = await pull(cri, name)
        pod = await cri.run_pod("policy")
        container = await create(cri, pod, config_of(id, name))
        for rule in (f'[images]\n"{node.registry.name}" = "reject"\n', signed_rule(node)):
            node.policy.write_text(rule)
            for config in (config_of(id, name), config_of(id, ""), config_of(name, "")):
                config.metadata.attempt = 1
                error = await refused(create(cri, pod, config))
                assert error.code is Code.UNKNOWN
                assert error.message.startswith("SignatureValidationFailed: image ")
            error = await refused(cri.call("StartContainer", container_id=container))
            assert error.message.startswith("SignatureValidationFailed: image ")
        assert [c.id for c in (await cri.call("ListContainers")).containers] == [container]

    calls(node.engine, work)


def test_the_name_of_another_image_does_not_change_the_rule(node: Node) -> None:
    async def work(cri: Cri) -> None:
        id = await pull(cri, node.name("unsigned:latest"))
        node.policy.write_text(f'[images]\n"*" = "accept"\n"{node.registry.name}" = "reject"\n')
        pod = await cri.run_pod("disguise")
        for name in ("busybox", "docker.io/library/busybox:latest", "quay.example/app"):
            error = await refused(create(cri, pod, config_of(id, name)))
            assert error.message.startswith("SignatureValidationFailed: image "), name

    calls(node.engine, work)


def test_a_status_has_the_name_and_the_digest_of_the_image(node: Node) -> None:
    async def work(cri: Cri) -> None:
        name = node.name("signed:latest")
        id = await pull(cri, name)
        node.cli("tag", name, "another:1")
        pod = await cri.run_pod("names")
        container = await create(cri, pod, config_of(id, name))
        status = await cri.container(container)
        assert (status.image.image, status.image.user_specified_image) == (name, name)
        assert status.image_id == id
        digest, _ = node.registry.manifest("signed", "latest")
        assert status.image_ref == f"{node.registry.name}/signed@{digest}"
        node.cli("rmi", "another:1")

    calls(node.engine, work)


# -- image volumes -------------------------------------------------------------------------------


def with_volume(image: str, path: str = "", **fields: object) -> api_pb2.ContainerConfig:
    config = container_config("main", "sleep", "100")
    mount = {"container_path": "/tool", "readonly": True, "image_sub_path": path}
    config.mounts.add(**(mount | {"image": api_pb2.ImageSpec(image=image)} | fields))  # type: ignore[arg-type]
    return config


@pytest.mark.parametrize(
    ("path", "command"),
    [("", "/tool/data/value"), ("data", "/tool/value"), ("inside/", "/tool/value")],
)
def test_an_image_volume_is_read_only_and_reported_with_its_digest(
    node: Node, path: str, command: str
) -> None:
    async def work(cri: Cri) -> None:
        name = "pod-tool"
        pod = await cri.run_pod("volume")
        container = await create(cri, pod, with_volume(name, path))
        await cri.call("StartContainer", container_id=container)
        assert await cri.run(container, "cat", command) == "42\n"
        done = await cri.call("ExecSync", container_id=container, cmd=["touch", "/tool/x"])
        assert b"Read-only file system" in done.stderr
        [mount] = (await cri.container(container)).mounts
        [image] = (
            await cri.image(
                "ListImages", filter=api_pb2.ImageFilter(image=api_pb2.ImageSpec(image=name))
            )
        ).images
        assert (mount.container_path, mount.readonly, mount.host_path) == ("/tool", True, "")
        assert (mount.image.image, mount.image.image_ref) == (name, image.id)
        assert mount.image_sub_path == path.rstrip("/")

    calls(node.engine, work)


def test_an_image_volume_is_reported_with_what_its_pull_returned(node: Node) -> None:
    async def work(cri: Cri) -> None:
        id = await pull(cri, node.name("signed:latest"))
        pod = await cri.run_pod("digest")
        container = await create(cri, pod, with_volume(id))
        [mount] = (await cri.container(container)).mounts
        assert mount.image.image_ref == id

    calls(node.engine, work)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_volume("pod-tool", "absent"), "'absent' is not in image pod-tool: No such file"),
        (with_volume("pod-tool", "data/value"), "Not a directory"),
        (with_volume("pod-tool", "outside"), "a link in it leads out of the image"),
        (with_volume("pod-tool", "absolute"), "a link in it leads out of the image"),
        (with_volume("pod-tool", "data/../data"), "must be a path within"),
        (with_volume("pod-tool", "../etc"), "must be a path within"),
        (with_volume("pod-tool", "/data"), "must be a path within"),
        (with_volume("pod-tool", readonly=False), "must be read-only"),
        (with_volume("pod-tool", host_path="/etc"), "has a path of the host"),
        (with_volume("absent-tool"), "No such image"),
    ],
)
def test_a_bad_image_volume_is_refused_at_creation(
    node: Node, config: api_pb2.ContainerConfig, message: str
) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("bad")
        error = await refused(create(cri, pod, config))
        assert error.code is Code.UNKNOWN
        assert error.message.startswith("ImageVolumeMountFailed: ")
        assert message in error.message
        assert not (await cri.call("ListContainers")).containers

    calls(node.engine, work)


def test_an_image_volume_is_subject_to_the_policy(node: Node) -> None:
    async def work(cri: Cri) -> None:
        id = await pull(cri, node.name("unsigned:latest"))
        pod = await cri.run_pod("volume-policy")
        container = await create(cri, pod, with_volume(id))
        node.policy.write_text(signed_rule(node))
        config = with_volume(id)
        config.metadata.attempt = 1
        error = await refused(create(cri, pod, config))
        assert error.message.startswith("SignatureValidationFailed: image ")
        error = await refused(cri.call("StartContainer", container_id=container))
        assert error.message.startswith("SignatureValidationFailed: image ")

    calls(node.engine, work)


def test_an_image_stays_as_long_as_it_is_used_or_mounted(node: Node) -> None:
    async def work(cri: Cri) -> None:
        name = node.name("unsigned:latest")
        id = await pull(cri, name)
        spec = api_pb2.ImageSpec(image=id)
        pod = await cri.run_pod("used")
        for number, config in enumerate((config_of(id, name), with_volume(id))):
            config.metadata.attempt = number
            container = await create(cri, pod, config)
            for ref in (id, name):
                error = await refused(cri.image("RemoveImage", image=api_pb2.ImageSpec(image=ref)))
                assert error.code is Code.FAILED_PRECONDITION
                assert f"is being used by stopped container {container[:12]}" in error.message
            assert (await cri.image("ImageStatus", image=spec)).image.pinned
            await cri.call("RemoveContainer", container_id=container)
        assert not (await cri.image("ImageStatus", image=spec)).image.pinned
        for _ in range(2):
            await cri.image("RemoveImage", image=spec)
        assert not (await cri.image("ImageStatus", image=spec)).HasField("image")

    calls(node.engine, work)


def test_an_image_is_pinned_by_the_configuration(node: Node) -> None:
    async def work(cri: Cri) -> None:
        images = {i.repo_tags[0]: i.pinned for i in (await cri.image("ListImages")).images}
        assert images["docker.io/library/pod-tool:latest"]
        assert not images["docker.io/library/busybox:latest"]

    calls(node.engine, work)


# -- mirrors -------------------------------------------------------------------------------------


def test_a_mirror_serves_pods_and_docker_s_clients(node: Node) -> None:
    async def work(cri: Cri) -> None:
        with ScriptedRegistry(layer("mirrored")) as mirror:
            hosts = node.certs / "_default" / "hosts.toml"
            hosts.parent.mkdir(parents=True)
            hosts.write_text(f'server = "{mirror.url}"\n')
            id = await pull(cri, "registry.invalid/box:1")
            assert mirror.asked("ns=registry.invalid")
            await cri.image("RemoveImage", image=api_pb2.ImageSpec(image=id))
            for program in ("jaula", "docker"):
                done = node.engine.cli(program, "pull", "registry.invalid/box:1")
                assert done.returncode == 0, done.stderr
            document = json.loads(node.cli("inspect", "registry.invalid/box:1"))[0]
            assert document["Id"] == id
            node.cli("rmi", "registry.invalid/box:1")
            hosts.write_text('[host."https://a"]\ncapabilties = []\n')
            error = await refused(pull(cri, "registry.invalid/box:1"))
            assert error.code is Code.INVALID_ARGUMENT
            assert f'{hosts}: host."https://a".capabilties: unknown key' in error.message
            hosts.write_text('[host."http://127.0.0.1:1"]\n')
        error = await refused(pull(cri, "registry.invalid/box:1"))
        assert error.message.startswith("RegistryUnavailable: ")
        assert "tried before: 127.0.0.1:1: " in error.message
        hosts.unlink()
        hosts.parent.rmdir()

    calls(node.engine, work)
