"""What the validation suite of CRI checks: mounts, time limits, seccomp, connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.pods import Cri, calls, connected, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.kernel import mounts
from jaula.kernel.mounts import MNT, MS

CONNECTIONS = 300


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 83) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """Return a directory that is a shared mount."""
    directory = tmp_path / "shared"
    directory.mkdir()
    mounts.mount(str(directory), str(directory), None, MS.BIND)
    mounts.mount(None, str(directory), None, MS.SHARED)
    yield directory
    mounts.umount2(str(directory), MNT.DETACH)


def test_the_status_has_the_mounts_as_they_were_requested(
    node: PrivateEngine, tmp_path: Path
) -> None:
    requested = [
        api_pb2.Mount(container_path="/one", host_path=str(tmp_path)),
        api_pb2.Mount(
            container_path="/two", host_path=str(tmp_path), readonly=True, recursive_read_only=True
        ),
        api_pb2.Mount(
            container_path="/three",
            host_path=str(tmp_path),
            readonly=True,
            propagation=api_pb2.PROPAGATION_HOST_TO_CONTAINER,
        ),
        api_pb2.Mount(
            container_path="/four",
            host_path=str(tmp_path),
            propagation=api_pb2.PROPAGATION_BIDIRECTIONAL,
        ),
    ]

    async def work(cri: Cri) -> None:
        config = container_config("main", "sleep", "100", mounts=requested)
        config.linux.security_context.privileged = True
        sandbox = sandbox_config("status")
        sandbox.linux.security_context.privileged = True
        pod = (await cri.call("RunPodSandbox", config=sandbox)).pod_sandbox_id
        id = (await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)).container_id
        assert list((await cri.container(id)).mounts) == requested

    calls(node, work)


def test_a_read_only_mount_leaves_the_mounts_below_it_writable(
    node: PrivateEngine, shared: Path
) -> None:
    below = shared / "below"
    below.mkdir()
    mounts.mount("tmpfs", str(below), "tmpfs")

    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("below")
        for name, recursive in (("one", False), ("all", True)):
            mount = api_pb2.Mount(
                container_path="/mnt",
                host_path=str(shared),
                readonly=True,
                recursive_read_only=recursive,
            )
            id = await cri.run_container(pod, name, "sleep", "100", mounts=[mount])
            done = await cri.call("ExecSync", container_id=id, cmd=["touch", f"/mnt/below/{name}"])
            assert (done.exit_code != 0) == recursive, done
            done = await cri.call("ExecSync", container_id=id, cmd=["touch", "/mnt/file"])
            assert b"Read-only file system" in done.stderr

    calls(node, work)


def test_an_image_is_mounted_and_its_status_has_the_id(node: PrivateEngine) -> None:
    image_id = node.request("GET", "/images/busybox/json").json()["Id"]

    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("image")
        mount = api_pb2.Mount(
            container_path="/image",
            image=api_pb2.ImageSpec(image="busybox"),
            image_sub_path="etc",
            readonly=True,
        )
        id = await cri.run_container(pod, "main", "sleep", "100", mounts=[mount])
        assert "root" in await cri.run(id, "cat", "/image/passwd")
        (listed,) = (await cri.container(id)).mounts
        assert (listed.container_path, listed.host_path) == ("/image", "")
        assert (listed.image.image_ref, listed.image_sub_path) == (image_id, "etc")

    calls(node, work)


def test_a_path_that_an_image_lacks_is_refused_at_the_creation(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("absent")
        for path in ("absent", "../../etc/hostname", "etc/passwd/below"):
            mount = api_pb2.Mount(
                container_path="/image",
                image=api_pb2.ImageSpec(image="busybox"),
                image_sub_path=path,
                readonly=True,
            )
            config = container_config("main", "true", mounts=[mount])
            with pytest.raises(GrpcError) as caught:
                await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
            assert caught.value.message.startswith("ImageVolumeMountFailed: ")
        assert not (await cri.call("ListContainers")).containers

    calls(node, work)


def test_a_command_that_exceeds_its_time_leaves_no_process(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("limit", pid=api_pb2.CONTAINER)
        config = container_config("main", "sh", "-c", "read forever", stdin=True)
        config.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
        id = (await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)).container_id
        await cri.call("StartContainer", container_id=id)
        for _ in range(3):
            with pytest.raises(GrpcError) as caught:
                await cri.call("ExecSync", container_id=id, cmd=["sleep", "99"], timeout=1)
            assert caught.value.code is Code.DEADLINE_EXCEEDED
            assert "(sleep)" not in await cri.run(id, "sh", "-c", "cat /proc/[0-9]*/stat")

    calls(node, work)


def test_a_pod_without_a_seccomp_profile_is_unconfined(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("seccomp")
        one = await cri.run_container(pod, "one", "sleep", "100")
        assert "Seccomp:\t0" in await cri.run(one, "cat", "/proc/self/status")
        config = container_config("two", "sleep", "100")
        config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
        two = (await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)).container_id
        await cri.call("StartContainer", container_id=two)
        assert "Seccomp:\t2" in await cri.run(two, "cat", "/proc/self/status")

    calls(node, work)


def test_a_client_may_hold_hundreds_of_connections(node: PrivateEngine) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(node)) for _ in range(CONNECTIONS)]
            for client in (clients[0], clients[-1]):
                assert (await client.call("Version")).runtime_name == "jaula"

    asyncio.run(run())
