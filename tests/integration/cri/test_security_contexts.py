"""Security contexts of CRI on the kernel: users, namespaces, paths, capabilities, mounts."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.pods import Cri, connected, container_config, sandbox_config
from jaula.cri.proto import api_pb2 as api
from jaula.grpc.errors import Code, GrpcError

_FIRST_ID = 1_950_000_000
_COUNT = 65536


@pytest.fixture(scope="module")
def node(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 131) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        context = tmp_path_factory.mktemp("groups")
        (context / "passwd").write_text(
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/app:/bin/sh\n"
        )
        (context / "group").write_text("root:x:0:\napp:x:1000:\nextra:x:50000:app\n")
        (context / "Dockerfile").write_text("FROM busybox\nCOPY passwd group /etc/\n")
        built = private.cli("jaula", "build", "-t", "groups", str(context))
        assert built.returncode == 0, built.stderr
        yield private


def calls(engine: PrivateEngine, work: Callable[[Cri], Awaitable[None]]) -> None:
    """Run ``work`` with a connection, then remove every pod."""

    async def run() -> None:
        async with connected(engine) as cri:
            try:
                await work(cri)
            finally:
                for pod in (await cri.call("ListPodSandbox")).items:
                    await cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    asyncio.run(run())


async def refused(call: Awaitable[object]) -> GrpcError:
    with pytest.raises(GrpcError) as caught:
        await call
    return caught.value


def mapped_sandbox(name: str, **fields: Any) -> api.PodSandboxConfig:
    """Return a pod with a user namespace, as the kubelet asks for one."""
    config = sandbox_config(name, **fields)
    _map(config.linux.security_context.namespace_options)
    return config


def _map(options: api.NamespaceOption) -> None:
    options.userns_options.mode = api.POD
    for rows in (options.userns_options.uids, options.userns_options.gids):
        rows.add(container_id=0, host_id=_FIRST_ID, length=_COUNT)


async def run_pod(cri: Cri, config: api.PodSandboxConfig) -> str:
    return str((await cri.call("RunPodSandbox", config=config)).pod_sandbox_id)


async def create(cri: Cri, pod: str, config: api.ContainerConfig) -> str:
    created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
    return str(created.container_id)


async def start(cri: Cri, pod: str, config: api.ContainerConfig) -> str:
    id = await create(cri, pod, config)
    await cri.call("StartContainer", container_id=id)
    return id


async def exited(cri: Cri, container: str) -> int:
    """Return the exit status of a container after its exit."""
    for _ in range(200):
        status = await cri.container(container)
        if status.state == api.CONTAINER_EXITED:
            return int(status.exit_code)
        await asyncio.sleep(0.05)
    raise AssertionError("the container does not exit")


def host_pid(engine: PrivateEngine, container: str) -> int:
    return int(engine.request("GET", f"/containers/{container}/json").json()["State"]["Pid"])


def namespace(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


# -- users ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "group", "expected"),
    [
        (api.Merge, None, [1000, 50000, 4000]),
        (api.Merge, 3000, [3000, 50000, 4000]),
        (api.Strict, None, [1000, 4000]),
        (api.Strict, 3000, [3000, 4000]),
    ],
)
def test_groups_are_those_of_the_policy_and_are_reported(
    node: PrivateEngine, policy: int, group: int | None, expected: list[int]
) -> None:
    async def work(cri: Cri) -> None:
        assert (await cri.call("Status")).features.supplemental_groups_policy
        config = container_config("main", "sleep", "100")
        config.image.image = "groups"
        context = config.linux.security_context
        context.run_as_user.value = 1000
        if group is not None:
            context.run_as_group.value = group
        context.supplemental_groups.append(4000)
        context.supplemental_groups_policy = policy
        pod = await cri.run_pod("groups")
        id = await create(cri, pod, config)
        assert (await cri.container(id)).user.linux.gid == expected[0]
        await cri.call("StartContainer", container_id=id)
        user = (await cri.container(id)).user.linux
        assert (user.uid, user.gid) == (1000, expected[0])
        assert list(user.supplemental_groups) == expected
        status = Path(f"/proc/{host_pid(node, id)}/status").read_text()
        groups = status.partition("Groups:")[2].split("\n", 1)[0].split()
        assert sorted(map(int, groups)) == sorted(expected)
        assert sorted(map(int, (await cri.run(id, "id", "-G")).split())) == sorted(expected)
        assert (await cri.run(id, "id", "-u")) == "1000\n"

    calls(node, work)


def test_a_user_name_is_looked_up_in_the_image_when_the_container_is_created(
    node: PrivateEngine,
) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("names")
        config = container_config("main", "sleep", "100")
        config.image.image = "groups"
        config.linux.security_context.run_as_username = "app"
        id = await start(cri, pod, config)
        user = (await cri.container(id)).user.linux
        assert (user.uid, list(user.supplemental_groups)) == (1000, [1000, 50000])
        for name, text in (("absent", "absent"), ("app:0", "'app:0'")):
            config.metadata.name = "other"
            config.linux.security_context.run_as_username = name
            error = await refused(create(cri, pod, config))
            assert (error.code, text in str(error)) == (Code.INVALID_ARGUMENT, True), error
        assert [c.id for c in (await cri.call("ListContainers")).containers] == [id]

    calls(node, work)


# -- namespaces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [False, True])
def test_a_debug_container_joins_the_process_namespace_of_its_target(
    node: PrivateEngine, mapped: bool
) -> None:
    async def work(cri: Cri) -> None:
        make = mapped_sandbox if mapped else sandbox_config
        pod = await run_pod(cri, make("debug", pid=api.CONTAINER))
        config = container_config("main", "sleep", "111")
        config.linux.security_context.namespace_options.pid = api.CONTAINER
        target = await start(cri, pod, config)
        debug = container_config("debugger", "sleep", "222")
        options = debug.linux.security_context.namespace_options
        options.pid, options.target_id = api.TARGET, target
        id = await start(cri, pod, debug)
        assert (await cri.run(id, "cat", "/proc/1/cmdline")).split("\0")[:2] == ["sleep", "111"]
        pids = {name: host_pid(node, c) for name, c in (("p", pod), ("t", target), ("d", id))}
        assert namespace(pids["d"], "pid") == namespace(pids["t"], "pid")
        assert namespace(pids["d"], "pid") != namespace(pids["p"], "pid")
        for kind in ("ipc", "uts", "net", "user"):
            assert namespace(pids["d"], kind) == namespace(pids["p"], kind)
        assert (namespace(pids["d"], "user") != namespace(os.getpid(), "user")) is mapped
        listed = await cri.run(target, "ps")
        assert "sleep 222" in listed
        verified = node.cli("jaula", "verify", "--format", "json", id)
        rows = {row["id"]: row["verdict"] for row in json.loads(verified.stdout)}
        assert (rows["namespace pid"], "FAILS" in rows.values()) == ("relaxed", False), rows
        tree = node.cli("jaula", "tree", id)
        assert f"sleep({pids['d']}," in tree.stdout, tree
        await cri.call("StopContainer", container_id=target)
        assert await exited(cri, id) == 137

    calls(node, work)


def test_a_target_must_be_a_running_container_of_the_pod(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        pod, other = await cri.run_pod("one"), await cri.run_pod("two")
        ended = await cri.run_container(pod, "ended", "true")
        foreign = await cri.run_container(other, "main", "sleep", "100")
        await exited(cri, ended)
        debug = container_config("debugger", "true")
        options = debug.linux.security_context.namespace_options
        options.pid = api.TARGET
        for target, code, text in (
            ("", Code.INVALID_ARGUMENT, "target_id"),
            (foreign, Code.INVALID_ARGUMENT, "not of the pod"),
            (ended, Code.FAILED_PRECONDITION, "does not run"),
            (pod, Code.NOT_FOUND, "No such container"),
            ("0" * 64, Code.NOT_FOUND, "No such container"),
        ):
            options.target_id = target
            error = await refused(create(cri, pod, debug))
            assert (error.code, text in str(error)) == (code, True), error
        assert len((await cri.call("ListContainers")).containers) == 2

    calls(node, work)
