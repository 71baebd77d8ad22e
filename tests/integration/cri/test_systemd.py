"""Pods whose cgroups are units of systemd. Run by ``./test --vm-all systemd``."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine, SliceEngine
from harness.pods import Cri, calls, connected, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError

pytestmark = [pytest.mark.vm, pytest.mark.needs("/run/systemd/system")]

MIB = 1 << 20
TREE = Path("/sys/fs/cgroup")


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[SliceEngine]:
    runc = shutil.which("runc")
    flags = ("--add-runtime", f"runc={runc}") if runc else ()
    private = SliceEngine((worker_index + 93) % 250 + 1, extra_flags=("--cri", *flags))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private
    for name in (f"{private.tag}.slice", f"{private.tag}k.slice"):
        systemctl("stop", name)


def pod_in(node: PrivateEngine, name: str) -> api_pb2.PodSandboxConfig:
    """Return the configuration of a pod in a slice, named as the kubelet names it."""
    config = sandbox_config(name)
    top = f"{node.tag}k"
    config.linux.cgroup_parent = f"/{top}.slice/{top}-burstable.slice/{top}-burstable-pod_1.slice"
    return config


async def run_in(
    cri: Cri, node: PrivateEngine, handler: str = "", **limits: Any
) -> tuple[str, str]:
    """Run a container in a pod in a slice; return the ids of the pod and the container."""
    pod = await cri.call("RunPodSandbox", config=pod_in(node, "unit"), runtime_handler=handler)
    config = container_config("main", "sleep", "1000")
    config.linux.resources.CopyFrom(api_pb2.LinuxContainerResources(**limits))
    created = await cri.call("CreateContainer", pod_sandbox_id=pod.pod_sandbox_id, config=config)
    await cri.call("StartContainer", container_id=created.container_id)
    return str(pod.pod_sandbox_id), str(created.container_id)


def document(node: PrivateEngine, id: str) -> dict[str, Any]:
    return dict(node.request("GET", f"/containers/{id}/json").json())


def cgroup_of(node: PrivateEngine, id: str) -> str:
    """Return the cgroup of a container's first process."""
    pid = document(node, id)["State"]["Pid"]
    return Path(f"/proc/{pid}/cgroup").read_text().rstrip("\n").removeprefix("0::")


def shown(unit: str, *names: str) -> dict[str, str]:
    arguments = [f"--property={name}" for name in names]
    done = subprocess.run(
        ["systemctl", "show", unit, *arguments], capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def systemctl(*arguments: str) -> None:
    subprocess.run(["systemctl", *arguments], check=True)


def test_the_kubelet_is_told_the_driver(node: SliceEngine) -> None:
    async def work(cri: Cri) -> None:
        config = await cri.call("RuntimeConfig")
        assert config.linux.cgroup_driver == api_pb2.SYSTEMD
        assert node.request("GET", "/info").json()["CgroupDriver"] == "systemd"

    calls(node, work)


def test_a_program_that_ends_at_once_has_its_exit_status(node: SliceEngine) -> None:
    """systemd removes a scope without processes, before the shim has opened it at times."""

    async def work(cri: Cri) -> None:
        pod = (await cri.call("RunPodSandbox", config=pod_in(node, "short"))).pod_sandbox_id
        for number in range(20):
            id = await cri.run_container(pod, f"n{number}", "sh", "-c", "exit 3")
            deadline = time.monotonic() + 60
            while (status := await cri.container(id)).state != api_pb2.CONTAINER_EXITED:
                assert time.monotonic() < deadline, status
                await asyncio.sleep(0.05)
            assert (status.exit_code, status.reason) == (3, "Error"), status

    calls(node, work)


@pytest.mark.parametrize("handler", ["", "jaula-userns", "runc"])
def test_a_container_is_a_delegated_scope_in_the_slice_of_its_pod(
    node: SliceEngine, handler: str
) -> None:
    if handler == "runc" and not shutil.which(handler):
        pytest.skip("runc is not installed")

    async def work(cri: Cri) -> None:
        pod, id = await run_in(
            cri, node, handler, memory_limit_in_bytes=64 * MIB, cpu_quota=50_000, cpu_period=100_000
        )
        parent = pod_in(node, "unit").linux.cgroup_parent
        assert cgroup_of(node, pod) == f"{parent}/jaula-{pod}.scope"
        assert cgroup_of(node, id) == f"{parent}/jaula-{id}.scope"
        found = shown(f"jaula-{id}.scope", "ActiveState", "Slice", "Delegate", "MemoryMax")
        assert found == {
            "ActiveState": "active",
            "Slice": parent.rpartition("/")[2],
            "Delegate": "yes",
            "MemoryMax": str(64 * MIB),
        }
        directory = TREE / f"{parent[1:]}/jaula-{id}.scope"
        assert (directory / "memory.max").read_text() == f"{64 * MIB}\n"
        assert (directory / "memory.swap.max").read_text() == "0\n"
        assert (directory / "cpu.max").read_text() == "50000 100000\n"
        assert await cri.run(id, "cat", "/proc/self/cgroup") == "0::/\n"
        usage = (await cri.call("ContainerStats", container_id=id)).stats
        assert usage.memory.working_set_bytes.value > 0
        (stats,) = (await cri.call("ListPodSandboxStats")).stats
        assert stats.linux.process.process_count.value == 2
        await cri.call("StopContainer", container_id=id, timeout=0)
        assert shown(f"jaula-{id}.scope", "LoadState") == {"LoadState": "not-found"}
        await cri.call("RemovePodSandbox", pod_sandbox_id=pod)
        assert shown(f"jaula-{pod}.scope", "LoadState") == {"LoadState": "not-found"}
        systemctl("stop", parent.rpartition("/")[2])  # as the kubelet does, after the pod has ended
        assert not (TREE / parent[1:]).exists()

    calls(node, work)


def test_systemd_keeps_processes_and_limits_when_it_is_reloaded(node: SliceEngine) -> None:
    async def work(cri: Cri) -> None:
        _, id = await run_in(cri, node, memory_limit_in_bytes=64 * MIB)
        changed = api_pb2.LinuxContainerResources(
            memory_limit_in_bytes=80 * MIB,
            cpu_shares=512,
            unified={"memory.high": str(72 * MIB), "memory.oom.group": "1"},
        )
        await cri.call("UpdateContainerResources", container_id=id, linux=changed)
        path = cgroup_of(node, id)
        names = ("memory.max", "memory.high", "memory.swap.max", "memory.oom.group", "cpu.weight")
        before = {name: (TREE / path[1:] / name).read_text() for name in names}
        assert before["memory.max"] == f"{80 * MIB}\n"
        assert before["memory.high"] == f"{72 * MIB}\n"
        assert before["memory.oom.group"] == "1\n"
        systemctl("daemon-reload")
        systemctl("daemon-reexec")
        assert cgroup_of(node, id) == path
        assert {name: (TREE / path[1:] / name).read_text() for name in names} == before
        assert shown(f"jaula-{id}.scope", "MemoryMax", "MemoryHigh") == {
            "MemoryMax": str(80 * MIB),
            "MemoryHigh": str(72 * MIB),
        }

    calls(node, work)


def test_a_killed_engine_finds_its_scopes_again(node: SliceEngine) -> None:
    async def first(cri: Cri) -> None:
        pod, id = await run_in(cri, node, memory_limit_in_bytes=64 * MIB)
        ids.extend((pod, id))
        paths.append(cgroup_of(node, id))

    async def second(cri: Cri) -> None:
        assert cgroup_of(node, ids[1]) == paths[0]
        changed = api_pb2.LinuxContainerResources(memory_limit_in_bytes=96 * MIB)
        await cri.call("UpdateContainerResources", container_id=ids[1], linux=changed)
        assert (TREE / paths[0][1:] / "memory.max").read_text() == f"{96 * MIB}\n"

    async def connect() -> None:
        async with connected(node) as cri:
            await first(cri)

    ids: list[str] = []
    paths: list[str] = []
    asyncio.run(connect())
    assert node.process is not None
    node.process.kill()
    node.process.wait()
    node.start()
    calls(node, second)
    assert not (TREE / paths[0][1:]).exists()


@pytest.mark.parametrize(
    ("parent", "words"),
    [
        ("/kubepods/pod1", "valid slice named as"),
        ("/other.slice/jlt-sub.slice", r"slice jlt-sub\.slice is in /jlt\.slice"),
        ("jlt--sub.slice", "invalid slice name"),
    ],
)
def test_a_parent_that_is_not_a_slice_is_refused(
    node: SliceEngine, parent: str, words: str
) -> None:
    async def work(cri: Cri) -> None:
        config = sandbox_config("bad")
        config.linux.cgroup_parent = parent
        with pytest.raises(GrpcError, match=words) as caught:
            await cri.call("RunPodSandbox", config=config)
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert not (await cri.call("ListPodSandbox")).items

    calls(node, work)


def test_other_containers_are_scopes_in_the_slice_of_the_engine(node: SliceEngine) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": {"Memory": 64 * MIB}}
    id = node.request("POST", "/containers/create", body).json()["Id"]
    try:
        assert node.request("POST", f"/containers/{id}/start").status == 204
        assert cgroup_of(node, id) == f"/{node.tag}.slice/jaula-{id}.scope"
        assert node.request("POST", f"/containers/{id}/pause").status == 204
        assert node.request("POST", f"/containers/{id}/unpause").status == 204
        done = node.cli("jaula", "verify", "--format", "json", id)
        rows = [row for row in json.loads(done.stdout) if "/sys/fs/cgroup" in row["evidence"]]
        assert len(rows) > 2
        assert [row for row in rows if row["verdict"] not in ("holds", "relaxed")] == []
        update = {"Memory": 80 * MIB, "MemorySwap": 80 * MIB}
        assert node.request("POST", f"/containers/{id}/update", update).status == 200
        assert shown(f"jaula-{id}.scope", "MemoryMax") == {"MemoryMax": str(80 * MIB)}
    finally:
        assert node.request("DELETE", f"/containers/{id}?force=1").status == 204
    assert shown(f"jaula-{id}.scope", "LoadState") == {"LoadState": "not-found"}


def test_containers_of_the_driver_cgroupfs_stay_with_another_driver(worker_index: int) -> None:
    engine = SliceEngine(
        (worker_index + 95) % 250 + 1,
        directory=True,
        extra_flags=("--exec-opt", "native.cgroupdriver=cgroupfs"),
    )
    with leaks.nothing_left(engine):
        load_image(engine, "busybox")
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
        id = engine.request("POST", "/containers/create", body).json()["Id"]
        assert engine.request("POST", f"/containers/{id}/start").status == 204
        path = cgroup_of(engine, id)
        assert path == f"/{engine.tag}/{id}"
        engine.stop()
        engine.directory = False
        engine.extra_flags = ("--exec-opt", "native.cgroupdriver=systemd")
        engine.start()
        assert engine.request("GET", "/info").json()["CgroupDriver"] == "systemd"
        assert cgroup_of(engine, id) == path
        assert (
            engine.request("POST", f"/containers/{id}/update", {"Memory": 64 * MIB}).status == 200
        )
        assert (TREE / path[1:] / "memory.max").read_text() == f"{64 * MIB}\n"
        assert engine.request("DELETE", f"/containers/{id}?force=1").status == 204
        assert not (TREE / path[1:]).exists()
        (TREE / engine.tag).rmdir()
    systemctl("stop", f"{engine.tag}.slice")


def test_a_failed_start_leaves_no_scope(node: SliceEngine) -> None:
    async def work(cri: Cri) -> None:
        pod = (await cri.call("RunPodSandbox", config=pod_in(node, "bad"))).pod_sandbox_id
        config = container_config("main", "/no/such/program")
        created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        with pytest.raises(GrpcError):
            await cri.call("StartContainer", container_id=created.container_id)
        unit = f"jaula-{created.container_id}.scope"
        assert shown(unit, "LoadState") == {"LoadState": "not-found"}
        assert shown(f"jaula-{pod}.scope", "ActiveState") == {"ActiveState": "active"}

    calls(node, work)


def test_the_check_finds_a_scope_of_no_container_and_removes_it(node: SliceEngine) -> None:
    id = "ab" * 32
    unit = f"jaula-{id}.scope"
    process = subprocess.Popen(
        ["systemd-run", "--scope", f"--unit={unit}", f"--slice={node.tag}.slice", "sleep", "1000"]
    )
    try:
        while not (directory := TREE / f"{node.tag}.slice/{unit}").exists():
            assert process.poll() is None
            time.sleep(0.05)
        words = ("system", "check", "--format", "{{.Area}} {{.Subject}}", "--repair")
        found = node.cli("jaula", *words).stdout.splitlines()
        assert f"cgroup /{node.tag}.slice/{unit}" in found
        assert process.wait(10) == -signal.SIGKILL
        assert not directory.exists()
        assert shown(unit, "LoadState") == {"LoadState": "not-found"}
    finally:
        process.kill()
        process.wait()
