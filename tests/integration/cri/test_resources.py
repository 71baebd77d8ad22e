"""Limits of pods and their containers: in the files of the kernel, and in the statuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.cgroup_driver import cgroup_driver
from harness.engine import PrivateEngine
from harness.pods import Cri, calls, container_config, sandbox_config, until
from jaula.cgroups.hugetlb_page_size import host_sizes
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.kernel import capabilities

MIB = 1 << 20
SYS_RESOURCE = 1 << 24
CPUSET = "cpuset" in cgroup_driver().controllers()


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 91) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


async def limited(cri: Cri, *command: str, **limits: Any) -> str:
    """Run a container with limits in a new pod and return its id."""
    config = container_config("main", *(command or ("sleep", "100")))
    config.linux.resources.CopyFrom(api_pb2.LinuxContainerResources(**limits))
    pod = await cri.run_pod("limits")
    created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
    await cri.call("StartContainer", container_id=created.container_id)
    return str(created.container_id)


async def update(cri: Cri, id: str, **limits: Any) -> Any:
    """Change limits and return those that the status then reports."""
    changed = api_pb2.LinuxContainerResources(**limits)
    await cri.call("UpdateContainerResources", container_id=id, linux=changed)
    return (await cri.container(id)).resources.linux


def files(node: PrivateEngine, id: str) -> dict[str, str]:
    """Return the limits of a container by the names of their files."""
    with cgroup_driver().open(f"/{node.cgroup_parent}/{id}") as cgroup:
        return cgroup.limits()


def pid_of(node: PrivateEngine, id: str) -> int:
    return int(node.request("GET", f"/containers/{id}/json").json()["State"]["Pid"])


def memory_of(limits: dict[str, str]) -> str:
    """Return the limit of memory."""
    return limits.get("memory.max") or limits["memory.limit_in_bytes"]


def test_limits_are_in_effect_and_reported_from_the_creation_on(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        config = container_config("main", "sleep", "100")
        config.linux.resources.CopyFrom(
            api_pb2.LinuxContainerResources(
                cpu_period=50_000,
                cpu_quota=25_000,
                cpu_shares=512,
                memory_limit_in_bytes=64 * MIB,
                cpuset_cpus="0" if CPUSET else "",
                oom_score_adj=900,
            )
        )
        pod = await cri.run_pod("limits")
        created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        expected = api_pb2.LinuxContainerResources()
        expected.CopyFrom(config.linux.resources)
        expected.memory_swap_limit_in_bytes = 64 * MIB
        assert (await cri.container(created.container_id)).resources.linux == expected
        await cri.call("StartContainer", container_id=created.container_id)
        assert (await cri.container(created.container_id)).resources.linux == expected
        found = files(node, created.container_id)
        assert memory_of(found) == str(64 * MIB)
        if "cpu.max" in found:
            assert (found["cpu.max"], found["memory.swap.max"]) == ("25000 50000", "0")
        else:
            assert (found["cpu.cfs_quota_us"], found["cpu.shares"]) == ("25000", "512")
        if CPUSET:
            assert found["cpuset.cpus"] == "0"
        pid = pid_of(node, created.container_id)
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "900\n"

    calls(node, work)


def test_an_update_changes_what_it_names_and_is_reported(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await limited(cri, memory_limit_in_bytes=64 * MIB, cpu_shares=512, cpu_quota=25_000)
        before = (await cri.container(id)).resources.linux
        assert await update(cri, id) == before
        found = await update(cri, id, memory_limit_in_bytes=96 * MIB)
        assert (found.memory_limit_in_bytes, found.memory_swap_limit_in_bytes) == (96 * MIB,) * 2
        assert (found.cpu_shares, found.cpu_quota) == (512, 25_000)
        found = await update(cri, id, cpu_quota=-1)
        assert (found.cpu_quota, found.memory_limit_in_bytes) == (-1, 96 * MIB)
        kernel = files(node, id)
        assert memory_of(kernel) == str(96 * MIB)
        assert kernel.get("cpu.cfs_quota_us", kernel.get("cpu.max", "").split(" ")[0]) in (
            *("-1", "max"),
        )
        found = await update(cri, id, memory_limit_in_bytes=32 * MIB)
        assert memory_of(files(node, id)) == str(32 * MIB)

    calls(node, work)


def test_an_update_sets_the_oom_score_of_every_process(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await limited(cri, "sh", "-c", "sleep 100 & sleep 100 & wait", oom_score_adj=100)
        with cgroup_driver().open(f"/{node.cgroup_parent}/{id}") as cgroup:
            await until(lambda: len(cgroup.pids()) == 3)
            assert (await update(cri, id, oom_score_adj=250)).oom_score_adj == 250
            scores = [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in cgroup.pids()]
        assert scores == ["250\n"] * 3
        assert (await update(cri, id, cpu_shares=512)).oom_score_adj == 250
        if not capabilities.capget()[0] & SYS_RESOURCE:
            own = int(Path("/proc/self/oom_score_adj").read_text())
            assert (await update(cri, id, oom_score_adj=-999)).oom_score_adj == max(own, -999)
        with pytest.raises(GrpcError, match="range for oom score adj") as caught:
            await update(cri, id, oom_score_adj=1001)
        assert caught.value.code is Code.INVALID_ARGUMENT

    calls(node, work)


def test_a_limit_that_is_not_valid_leaves_all_as_they_were(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await limited(cri, memory_limit_in_bytes=64 * MIB)
        before, kernel = (await cri.container(id)).resources.linux, files(node, id)
        for bad in (
            {"cpu_quota": 10},
            {"cpu_shares": 1},
            {"cpuset_cpus": "0-4000"},
            {"memory_limit_in_bytes": 96 * MIB, "memory_swap_limit_in_bytes": 80 * MIB},
            {"memory_limit_in_bytes": 96 * MIB, "unified": {"memory/high": "1"}},
            {"memory_limit_in_bytes": 96 * MIB, "unified": {"cgroup.procs": "1"}},
            {"hugepage_limits": [api_pb2.HugepageLimit(page_size="2 MB", limit=1)]},
        ):
            with pytest.raises(GrpcError) as caught:
                await update(cri, id, **bad)
            assert caught.value.code is Code.INVALID_ARGUMENT
        assert (await cri.container(id)).resources.linux == before
        assert files(node, id) == kernel

    calls(node, work)


def test_values_of_cgroup_files_are_refused_with_cgroup_v1(node: PrivateEngine) -> None:
    if cgroup_driver().version == 2:
        pytest.skip("this host has cgroup v2")

    async def work(cri: Cri) -> None:
        with pytest.raises(GrpcError, match=r"need cgroup v2, this host has v1: memory\.high"):
            await limited(cri, unified={"memory.high": "1000000"})
        assert not (await cri.call("ListContainers")).containers

    calls(node, work)


@pytest.mark.vm
def test_values_of_cgroup_files_are_written_last(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await limited(
            cri,
            memory_limit_in_bytes=64 * MIB,
            unified={
                "memory.high": "50331648",
                "memory.oom.group": "1",
                "memory.max": "62914560",
            },
        )
        found = files(node, id)
        assert (found["memory.high"], found["memory.oom.group"]) == ("50331648", "1")
        assert found["memory.max"] == "62914560"
        status = await update(
            cri, id, memory_limit_in_bytes=70 * MIB, unified={"memory.low": "4096"}
        )
        found = files(node, id)
        assert (found["memory.low"], found["memory.max"]) == ("4096", "62914560")
        assert dict(status.unified) == {
            "memory.high": "50331648",
            "memory.low": "4096",
            "memory.max": "62914560",
            "memory.oom.group": "1",
        }
        for bad in ({"memory.hihg": "1"}, {"memory.high": "many"}, {"rdma.max": "1"}):
            with pytest.raises(GrpcError, match=r"memory\.hi|rdma\.max"):
                await update(cri, id, unified=bad)
        assert files(node, id) == found
        pod = (await cri.call("ListPodSandbox")).items[0].id
        config = container_config("bad", "true")
        config.linux.resources.unified["memory.hihg"] = "1"
        id = (await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)).container_id
        with pytest.raises(GrpcError, match=r"memory\.hihg"):
            await cri.call("StartContainer", container_id=id)

    calls(node, work)


def test_huge_pages_are_limited_if_the_kernel_has_their_controller(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        limits = [api_pb2.HugepageLimit(page_size=size, limit=0) for size in host_sizes()]
        id = await limited(cri, hugepage_limits=limits)
        found, status = files(node, id), (await cri.container(id)).resources.linux
        if "hugetlb" not in cgroup_driver().controllers():
            assert not status.hugepage_limits
            return
        assert list(status.hugepage_limits) == limits
        kernel = [value for name, value in found.items() if name.startswith("hugetlb.2MB.")]
        assert kernel
        assert set(kernel) == {"0"}

    calls(node, work)


def test_the_limits_of_a_pod_are_recorded_and_changed(node: PrivateEngine) -> None:
    async def info(cri: Cri, pod: str) -> dict[str, Any]:
        status = await cri.call("PodSandboxStatus", pod_sandbox_id=pod, verbose=True)
        return dict(json.loads(status.info["info"]))

    async def work(cri: Cri) -> None:
        config = sandbox_config("pod")
        config.linux.resources.memory_limit_in_bytes = 100 * MIB
        config.linux.resources.unified["memory.high"] = "max"
        config.linux.overhead.cpu_shares = 10
        pod = (await cri.call("RunPodSandbox", config=config)).pod_sandbox_id
        found = await info(cri, pod)
        assert found["resources"] == {"memory": 100 * MIB, "unified": {"memory.high": "max"}}
        assert found["overhead"] == {"cpu_shares": 10}
        kernel = files(node, pod)
        await cri.call(
            "UpdatePodSandboxResources",
            pod_sandbox_id=pod,
            resources=api_pb2.LinuxContainerResources(memory_limit_in_bytes=200 * MIB),
        )
        found = await info(cri, pod)
        assert (found["resources"], found["overhead"]) == (
            {"memory": 200 * MIB},
            {"cpu_shares": 10},
        )
        assert files(node, pod) == kernel  # the kubelet writes those of the pod's own cgroup
        with pytest.raises(GrpcError) as caught:
            await cri.call("UpdatePodSandboxResources", pod_sandbox_id="absent")
        assert caught.value.code is Code.NOT_FOUND

    calls(node, work)
