"""Metrics and statistics of pods on this kernel, also of containers that end meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.cgroup_driver import cgroup_driver
from harness.engine import PrivateEngine
from harness.pods import Cri, calls, connected, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError

LISTS = {
    "ListContainers": "containers",
    "ListPodSandbox": "items",
    "ListContainerStats": "stats",
    "ListPodSandboxStats": "stats",
    "ListPodSandboxMetrics": "pod_metrics",
}
STREAMS = {
    "StreamContainers": "containers",
    "StreamPodSandboxes": "pod_sandboxes",
    "StreamContainerStats": "container_stats",
    "StreamPodSandboxStats": "pod_sandbox_stats",
    "StreamPodSandboxMetrics": "pod_sandbox_metrics",
}
SINGLE = {
    "ContainerStats": "container_id",
    "ContainerStatus": "container_id",
    "PodSandboxStats": "pod_sandbox_id",
    "PodSandboxStatus": "pod_sandbox_id",
}


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 73) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


def values(made: api_pb2.ContainerMetrics) -> dict[tuple[str, ...], int]:
    """Return the values by name, without its prefix, and own labels."""
    return {
        (m.name.removeprefix("container_"), *m.label_values[5:]): m.value.value
        for m in made.metrics
    }


async def streamed(cri: Cri, method: str) -> list[Any]:
    """Return the items of a stream."""
    request = getattr(api_pb2, f"{method}Request")()
    return [
        item
        async for part in cri.stream(method, request)
        for item in getattr(part, STREAMS[method])
    ]


def check_labels(pods: list[api_pb2.PodSandboxMetrics], labels: dict[str, int]) -> None:
    """Check that each sample has the labels of its descriptor, and that none is there twice."""
    everything = [
        metric
        for pod in pods
        for metrics in (pod.metrics, *(c.metrics for c in pod.container_metrics))
        for metric in metrics
    ]
    assert all(len(m.label_values) == labels[m.name] for m in everything)
    series = Counter((m.name, *m.label_values) for m in everything)
    assert set(series.values()) <= {1}


async def code_of(call: Awaitable[object]) -> Code:
    try:
        await call
    except GrpcError as error:
        return error.code
    return Code.OK


async def label_counts(cri: Cri) -> dict[str, int]:
    descriptors = (await cri.call("ListMetricDescriptors")).descriptors
    return {d.name: len(d.label_keys) for d in descriptors}


def test_metrics_of_a_container_are_those_of_its_cgroup(node: PrivateEngine) -> None:
    script = """
        head -c 3000000 /dev/zero > /file
        i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done
        nc -l -p 4242 & sleep 100 & echo ready > /ready; wait
    """
    config = container_config("main", "sh", "-c", script)
    limits = config.linux.resources
    limits.cpu_period, limits.cpu_quota, limits.cpu_shares = 50_000, 25_000, 512
    limits.memory_limit_in_bytes = limits.memory_swap_limit_in_bytes = 64 << 20

    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("metrics")
        id = (await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)).container_id
        await cri.call("StartContainer", container_id=id)
        await cri.run(id, "sh", "-c", "until [ -e /ready ]; do sleep 0.1; done")
        made = (await cri.call("ListPodSandboxMetrics")).pod_metrics
        check_labels(list(made), await label_counts(cri))
        (sandbox,) = made
        (container,) = sandbox.container_metrics
        assert (sandbox.pod_sandbox_id, container.container_id) == (pod, id)
        assert not sandbox.metrics  # the pod is on the host's network
        got = values(container)
        assert (got["processes",], got["threads",]) == (3, 3)
        assert got["file_descriptors",] >= 9 and got["sockets",] >= 1
        assert got["ulimits_soft", "max_open_files"] >= 1024
        assert got["cpu_cfs_periods_total",] > 0
        assert 0 < got["memory_working_set_bytes",] <= got["memory_usage_bytes",] < 64 << 20
        assert got["memory_max_usage_bytes",] >= got["memory_usage_bytes",]
        assert got["memory_rss",] > 0 and got["memory_cache",] > 0
        assert got["memory_failures_total", "pgfault", "container"] > 0
        assert (got["oom_events_total",], got["memory_failcnt",]) == (0, 0)
        (usage,) = (value for key, value in got.items() if key[0] == "fs_usage_bytes")
        assert 3_000_000 <= usage < 3_001_000
        assert (got["spec_cpu_period",], got["spec_cpu_quota",]) == (50_000, 25_000)
        assert (got["spec_cpu_shares",], got["spec_memory_limit_bytes",]) == (512, 64 << 20)
        status = await cri.container(id)
        assert got["start_time_seconds",] == status.started_at // 1_000_000_000
        assert 0 <= got["last_seen",] - got["start_time_seconds",] < 600
        names = {m.name for m in container.metrics}
        assert names <= set(await label_counts(cri))
        (again,) = await streamed(cri, "StreamPodSandboxMetrics")
        assert {m.name for m in again.container_metrics[0].metrics} >= names

    calls(node, work)


def test_the_rate_of_cpu_time_is_that_since_the_last_sample(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        config = container_config("main", "sh", "-c", "while :; do :; done")
        config.linux.resources.cpu_period, config.linux.resources.cpu_quota = 100_000, 20_000
        pod = await cri.run_pod("rate")
        id = (await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)).container_id
        await cri.call("StartContainer", container_id=id)
        first = (await cri.call("PodSandboxStats", pod_sandbox_id=pod)).stats.linux
        assert not first.cpu.HasField("usage_nano_cores")
        await asyncio.sleep(2.5)
        second = (await cri.call("PodSandboxStats", pod_sandbox_id=pod)).stats.linux
        (container,) = second.containers
        for before, after in ((first.cpu, second.cpu), (first.containers[0].cpu, container.cpu)):
            seconds = (after.timestamp - before.timestamp) / 1e9
            used = after.usage_core_nano_seconds.value - before.usage_core_nano_seconds.value
            assert abs(after.usage_nano_cores.value - used / seconds) <= 1
        assert 0 < container.cpu.usage_nano_cores.value < 300_000_000
        (listed,) = (await cri.call("ListContainerStats")).stats
        assert listed.cpu.usage_nano_cores.value == container.cpu.usage_nano_cores.value

    calls(node, work)


@pytest.mark.parametrize("has_cgroup", [True, False])
def test_a_pod_counts_its_containers(node: PrivateEngine, has_cgroup: bool) -> None:
    script = "x=$(head -c 2000000 /dev/zero | tr '\\0' x); sleep 99; :"
    parent = f"{node.cgroup_parent}/pod1" if has_cgroup else ""

    async def work(cri: Cri) -> None:
        config = sandbox_config("counted")
        config.linux.cgroup_parent = parent
        pod = (await cri.call("RunPodSandbox", config=config)).pod_sandbox_id
        for name in ("one", "two"):
            await cri.run_container(pod, name, "sh", "-c", script)
        for _ in range(200):
            made = (await cri.call("PodSandboxStats", pod_sandbox_id=pod)).stats.linux
            if made.process.process_count.value == 5 and made.memory.rss_bytes.value > 4_000_000:
                break  # pause, two shells, and a sleep of each
            await asyncio.sleep(0.1)
        assert made.process.process_count.value == 5
        assert made.memory.rss_bytes.value > 4_000_000
        assert made.memory.page_faults.value > 1000
        used = sum(c.memory.usage_bytes.value for c in made.containers)
        assert used < made.memory.usage_bytes.value < used + (4 << 20)
        used = sum(c.cpu.usage_core_nano_seconds.value for c in made.containers)
        assert made.cpu.usage_core_nano_seconds.value >= used > 0

    if not has_cgroup:
        calls(node, work)
        return
    with cgroup_driver().create(f"/{parent}") as cgroup:  # as the kubelet does
        try:
            calls(node, work)
        finally:
            cgroup.destroy()


def test_the_layer_and_the_images_are_on_the_same_file_system(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        id = await cri.run_container(await cri.run_pod("layer"), "main", "sleep", "100")
        await cri.run(id, "sh", "-c", "mkdir /d; for i in 1 2 3; do echo data > /d/$i; done")
        layer = (await cri.call("ContainerStats", container_id=id)).stats.writable_layer
        assert layer.used_bytes.value == 15
        assert layer.inodes_used.value >= 5
        info = await cri.call("ImageFsInfo")
        mountpoints = {
            fs.fs_id.mountpoint for fs in (*info.image_filesystems, *info.container_filesystems)
        }
        assert mountpoints == {layer.fs_id.mountpoint}

    calls(node, work)


def test_a_new_engine_knows_the_containers_of_each_pod(node: PrivateEngine) -> None:
    pods: dict[str, set[str]] = {}

    async def begin() -> None:
        async with connected(node) as cri:
            for name in ("one", "two"):
                pod = await cri.run_pod(name)
                pods[pod] = {
                    await cri.run_container(pod, container, "sleep", "100")
                    for container in ("a", "b")
                }

    async def members(cri: Cri) -> dict[str, set[str]]:
        listed = (await cri.call("ListPodSandboxStats")).stats
        return {s.attributes.id: {c.attributes.id for c in s.linux.containers} for s in listed}

    asyncio.run(begin())
    node.kill()
    node.start()

    async def work(cri: Cri) -> None:
        assert await members(cri) == pods
        metrics = (await cri.call("ListPodSandboxMetrics")).pod_metrics
        assert {
            m.pod_sandbox_id: {c.container_id for c in m.container_metrics} for m in metrics
        } == pods
        one, two = pods
        gone = pods[one].pop()
        await cri.call("RemoveContainer", container_id=gone)
        await cri.call("RemovePodSandbox", pod_sandbox_id=two)
        assert await members(cri) == {one: pods[one]}

    calls(node, work)


def test_every_call_answers_while_containers_end_and_are_removed(node: PrivateEngine) -> None:
    """A container that ends has no usage or a true one; zeros would be counters that decrease."""

    async def live(cri: Cri, number: int, ids: dict[str, str]) -> None:
        for attempt in range(5):
            pod = await cri.run_pod(f"ending-{number}-{attempt}")
            ids["pod_sandbox_id"] = pod
            command = ("sh", "-c", f"sleep 0.{number}{attempt}")
            for name in ("a", "b"):
                ids["container_id"] = await cri.run_container(pod, name, *command)
            await asyncio.sleep(0.03 * number)
            await cri.call("RemovePodSandbox", pod_sandbox_id=pod)

    async def watch(cri: Cri, done: asyncio.Event, ids: dict[str, str]) -> Counter[str]:
        labels, answers = await label_counts(cri), Counter[str]()
        while not done.is_set():
            for method, field in LISTS.items():
                items = list(getattr(await cri.call(method), field))
                answers[method] += len(items)
                check_usage(method, items, labels)
            for method in STREAMS:
                items = await streamed(cri, method)
                answers[method] += len(items)
                check_usage(method, items, labels)
            for method, name in SINGLE.items():
                if name not in ids:
                    continue
                code = await code_of(cri.call(method, **{name: ids[name]}))
                assert code in (Code.OK, Code.NOT_FOUND)
                answers[method] += 1
        return answers

    async def work(cri: Cri) -> None:
        done, ids = asyncio.Event(), {}
        async with connected(node) as one, connected(node) as two:
            watching = [asyncio.ensure_future(watch(c, done, ids)) for c in (one, two)]
            try:
                await asyncio.gather(*(live(cri, number, ids) for number in (1, 3, 6)))
            finally:
                done.set()
                answers = sum(await asyncio.gather(*watching), Counter())
        assert answers.keys() >= {*LISTS, *STREAMS, *SINGLE}
        assert not (await cri.call("ListPodSandboxMetrics")).pod_metrics

    calls(node, work)


def check_usage(method: str, items: list[Any], labels: dict[str, int]) -> None:
    """Check that a container of an answer either has no usage or has used CPU time and memory."""
    if "Metrics" in method:
        check_labels(items, labels)
        for pod in items:
            for container in pod.container_metrics:
                assert values(container)["memory_failures_total", "pgfault", "container"] > 0
    elif "Stats" in method:
        containers = (
            items if "Container" in method else [c for i in items for c in i.linux.containers]
        )
        for container in containers:
            assert not container.HasField("cpu") or container.cpu.usage_core_nano_seconds.value > 0
