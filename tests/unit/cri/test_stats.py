"""Statistics of CRI from the usage of containers and pods."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cgroups.cgroup_driver import (
    BlkioStats,
    CpuStats,
    MemoryStats,
    PidsStats,
    Pressure,
    PressureLine,
    Stats,
)
from jaula.engine.containers.resolved_request import resolve
from jaula.features.kubernetes.cri import cri_stats
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.metrics.pod_usage import (
    CgroupUsage,
    ContainerUsage,
    LayerSample,
    SandboxUsage,
)
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.pod import PodContainerRequest, PodMetadata, PodSandboxRequest
from jaula.state.container_records import ContainerRecord, PodSandboxRecord
from jaula.storage.drivers.storage_driver import SnapshotUsage

COUNTERS = {"rx_bytes": 1, "rx_errors": 2, "tx_bytes": 3, "tx_errors": 4}


def container(**limits: Any) -> ContainerRecord:
    body = ContainerCreate(image="app", host_config=HostConfig(**limits))
    pod = PodContainerRequest(
        sandbox="s" * 64, name="main", attempt=2, body=body, labels={"app": "web"}
    )
    return ContainerRecord(
        "c" * 64, "k8s", 1, body, "sha256:00", pod=pod, resolved_request=resolve(body)
    )


def cgroup(pressure: Pressure | None = None, **memory: Any) -> CgroupUsage:
    made = Stats(
        cpu=CpuStats(usage=70, pressure=pressure),
        memory=MemoryStats(**memory, pressure=pressure),
        pids=PidsStats(current=4),
        blkio=BlkioStats(pressure=pressure),
    )
    return CgroupUsage(made, 12, (7,))


def used(
    cgroup: CgroupUsage | None, rate: int | None = None, **limits: Any
) -> api_pb2.ContainerStats:
    layer = LayerSample(SnapshotUsage(77, 3), 11, 1)
    return cri_stats.container_stats(
        ContainerUsage(container(**limits), cgroup, rate, layer, "/lib")
    )


def pod(networks: dict[str, dict[str, int]], usage: CgroupUsage | None) -> api_pb2.PodSandboxStats:
    body = ContainerCreate()
    request = PodSandboxRequest(metadata=PodMetadata("web", "1", "shop"), body=body)
    record = ContainerRecord("s" * 64, "pod", 1, body, "", sandbox=PodSandboxRecord(request))
    return cri_stats.sandbox_stats(SandboxUsage(record, 9, usage, 5, networks, []))


def test_memory_of_v1_is_that_of_the_cgroups_below_as_well() -> None:
    details = {"rss": 1, "total_rss": 20, "pgfault": 2, "total_pgfault": 30, "pgmajfault": 3}
    memory = used(cgroup(usage=500, inactive_file=100, limit=1000, details=details)).memory
    assert (memory.usage_bytes.value, memory.working_set_bytes.value) == (500, 400)
    assert memory.available_bytes.value == 600
    assert (memory.rss_bytes.value, memory.page_faults.value) == (20, 30)
    assert memory.major_page_faults.value == 3


def test_memory_of_v2_is_anonymous_memory() -> None:
    details = {"anon": 20, "pgfault": 30, "pgmajfault": 3}
    memory = used(cgroup(usage=5, inactive_file=9, details=details)).memory
    assert (memory.rss_bytes.value, memory.working_set_bytes.value) == (20, 0)
    assert not memory.HasField("available_bytes")


def test_the_rate_is_absent_until_there_are_two_samples() -> None:
    assert not used(cgroup()).cpu.HasField("usage_nano_cores")
    assert used(cgroup(), 0).cpu.usage_nano_cores.value == 0
    assert used(cgroup(), 5).cpu.HasField("usage_nano_cores")


@pytest.mark.parametrize(
    ("limits", "available"),
    [
        ({}, None),
        ({"memory": 100, "memory_swap": -1}, None),
        ({"memory": 100, "memory_swap": 100}, 0),
        ({"memory": 100, "memory_swap": 130}, 20),
        ({"memory": 100}, 90),
    ],
)
def test_available_swap_follows_the_limit(limits: dict[str, int], available: int | None) -> None:
    swap = used(cgroup(swap=10), **limits).swap
    assert swap.swap_usage_bytes.value == 10
    shown = swap.swap_available_bytes.value if swap.HasField("swap_available_bytes") else None
    assert shown == available


def test_pressure_is_in_nanoseconds_and_absent_without_the_kernel_s() -> None:
    line = PressureLine(avg10=1.5, avg60=2.5, avg300=3.5, total=9)
    made = used(cgroup(Pressure(some=line)))
    for usage in (made.cpu, made.memory, made.io):
        some = usage.psi.Some
        assert (some.Total, some.Avg10, some.Avg60, some.Avg300) == (9000, 1.5, 2.5, 3.5)
        assert usage.psi.Full.Total == 0
    assert made.io.timestamp == 12
    made = used(cgroup())
    assert not made.cpu.HasField("psi") and not made.HasField("io")


def test_an_exited_container_has_its_layer_only() -> None:
    made = used(None)
    assert not made.HasField("cpu") and not made.HasField("memory") and not made.HasField("swap")
    layer = made.writable_layer
    assert (layer.timestamp, layer.used_bytes.value, layer.inodes_used.value) == (11, 77, 3)
    assert layer.fs_id.mountpoint == "/lib"


def test_a_pod_has_every_interface_and_always_a_default_one() -> None:
    made = pod({"net1": COUNTERS, "eth0": COUNTERS | {"rx_bytes": 9}}, cgroup())
    assert [i.name for i in made.linux.network.interfaces] == ["net1", "eth0"]
    assert made.linux.network.default_interface.name == "eth0"
    assert made.linux.network.default_interface.rx_bytes.value == 9
    assert made.linux.process.process_count.value == 4
    assert pod({"net1": COUNTERS}, None).linux.network.default_interface.name == "net1"


def test_a_stopped_pod_has_empty_statistics() -> None:
    made = pod({}, None)
    assert made.HasField("linux")
    assert not made.linux.HasField("network") and not made.linux.HasField("cpu")


def test_a_filter_selects_by_ids_and_labels() -> None:
    record = container()
    for fields, selected in (
        ({}, True),
        ({"id": "cc", "pod_sandbox_id": "ss"}, True),
        ({"id": "d"}, False),
        ({"pod_sandbox_id": "d"}, False),
        ({"label_selector": {"app": "web"}}, True),
        ({"label_selector": {"app": "other"}}, False),
    ):
        assert cri_stats.matches(api_pb2.ContainerStatsFilter(**fields), record) is selected
