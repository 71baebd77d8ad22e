"""Metrics of CRI: names, labels in the order of their descriptors, values of both cgroup versions.

The names are those that ``critest`` expects.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from jaula.cgroups.cgroup_driver import (
    BlkioStats,
    CpuStats,
    HugetlbStats,
    IoEntry,
    MemoryCounter,
    MemoryStats,
    PidsStats,
    Pressure,
    PressureLine,
    Stats,
)
from jaula.engine.containers.resolved_request import resolve
from jaula.features.kubernetes.cri import cri_metrics
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.metrics.pod_samples import (
    ContainerSample,
    FileSystem,
    OpenFiles,
    SandboxSample,
)
from jaula.features.metrics.pod_usage import CgroupUsage, LayerSample
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.pod import PodContainerRequest, PodMetadata, PodSandboxRequest
from jaula.state.container_records import ContainerRecord, PodSandboxRecord
from jaula.storage.drivers.storage_driver import SnapshotUsage

SECOND = 1_000_000_000  # nanoseconds
EXPECTED = [
    "blkio_device_usage_total",
    "cpu_cfs_periods_total",
    "cpu_cfs_throttled_periods_total",
    "cpu_cfs_throttled_seconds_total",
    "cpu_system_seconds_total",
    "cpu_usage_seconds_total",
    "cpu_user_seconds_total",
    "file_descriptors",
    "fs_inodes_free",
    "fs_inodes_total",
    "fs_limit_bytes",
    "fs_reads_bytes_total",
    "fs_reads_total",
    "fs_usage_bytes",
    "fs_writes_bytes_total",
    "fs_writes_total",
    "hugetlb_max_usage_bytes",
    "hugetlb_usage_bytes",
    "last_seen",
    "memory_cache",
    "memory_failcnt",
    "memory_failures_total",
    "memory_kernel_usage",
    "memory_mapped_file",
    "memory_max_usage_bytes",
    "memory_rss",
    "memory_swap",
    "memory_usage_bytes",
    "memory_working_set_bytes",
    "network_receive_bytes_total",
    "network_receive_errors_total",
    "network_receive_packets_dropped_total",
    "network_receive_packets_total",
    "network_transmit_bytes_total",
    "network_transmit_errors_total",
    "network_transmit_packets_dropped_total",
    "network_transmit_packets_total",
    "oom_events_total",
    "pressure_cpu_stalled_seconds_total",
    "pressure_cpu_waiting_seconds_total",
    "pressure_io_stalled_seconds_total",
    "pressure_io_waiting_seconds_total",
    "pressure_memory_stalled_seconds_total",
    "pressure_memory_waiting_seconds_total",
    "processes",
    "sockets",
    "spec_cpu_period",
    "spec_cpu_quota",
    "spec_cpu_shares",
    "spec_memory_limit_bytes",
    "spec_memory_reservation_limit_bytes",
    "spec_memory_swap_limit_bytes",
    "start_time_seconds",
    "threads",
    "threads_max",
    "ulimits_soft",
]
V1_MEMORY = {
    "cache": 1,
    "rss": 2,
    "mapped_file": 3,
    "pgfault": 4,
    "pgmajfault": 5,
    "active_file": 6,
    "total_cache": 11,
    "total_rss": 12,
    "total_mapped_file": 13,
    "total_pgfault": 14,
    "total_pgmajfault": 15,
    "total_active_file": 16,
}
V2_MEMORY = {
    "file": 11,
    "anon": 12,
    "file_mapped": 13,
    "pgfault": 14,
    "pgmajfault": 15,
    "active_file": 16,
}


def record(**limits: Any) -> ContainerRecord:
    body = ContainerCreate(image="registry/app:1", host_config=HostConfig(**limits))
    request = PodContainerRequest(sandbox="s" * 64, name="main", body=body)
    return ContainerRecord(
        *("c" * 64, "k8s", 1, body, "sha256:00"),
        pid=7,
        started_at=1700 * SECOND + 5,
        pod=request,
        resolved_request=resolve(body),
    )


def container(
    stats: Stats, *, open_files: OpenFiles | None = None, **limits: Any
) -> ContainerSample:
    return ContainerSample(
        record(**limits),
        CgroupUsage(stats, 2000 * SECOND + 5, (7, 8)),
        LayerSample(SnapshotUsage(77, 3), 1, 1),
        open_files,
        1024,
        FileSystem("/dev/sda1", 1000, 100, 60),
        {(8, 0): "/dev/sda"},
    )


def sample(*containers: ContainerSample, **networks: dict[str, int]) -> SandboxSample:
    metadata = PodMetadata("web", "1", "shop")
    body = ContainerCreate()
    sandbox = PodSandboxRecord(PodSandboxRequest(metadata=metadata, body=body))
    made = ContainerRecord("s" * 64, "pod", 1, body, "", sandbox=sandbox)
    return SandboxSample(made, 9, networks, containers)


def full(details: dict[str, int]) -> Stats:
    pressure = Pressure(some=PressureLine(total=3_999_999), full=PressureLine(total=1_000_000))
    return Stats(
        cpu=CpuStats(
            *(7 * SECOND + 1, 4 * SECOND, 3 * SECOND - 1, 50, 20, 2 * SECOND), pressure=pressure
        ),
        memory=MemoryStats(
            usage=500,
            peak=600,
            swap=8,
            failures=9,
            inactive_file=100,
            details=details,
            kernel=MemoryCounter(usage=21),
            pressure=pressure,
        ),
        pids=PidsStats(current=5, limit=64),
        blkio=BlkioStats(devices=(IoEntry(8, 0, 1, 2, 3, 4),), pressure=pressure),
        oom_kills=1,
        hugetlb={"2MB": HugetlbStats(2048, 4096, 0)},
    )


def values(made: api_pb2.ContainerMetrics) -> dict[tuple[str, ...], int]:
    """Return the values by name, without its prefix, and own labels."""
    return {
        (m.name.removeprefix("container_"), *m.label_values[5:]): m.value.value
        for m in made.metrics
    }


def test_every_name_has_one_descriptor_with_a_help_text() -> None:
    descriptors = list(cri_metrics.descriptors())
    names = Counter(d.name.removeprefix("container_") for d in descriptors)
    assert set(names) == {
        *EXPECTED,
        "memory_total_active_file_bytes",
        "memory_total_inactive_file_bytes",
    }
    assert set(names.values()) == {1}
    for descriptor in descriptors:
        assert descriptor.help.endswith(".")
        assert list(descriptor.label_keys[:5]) == ["pod", "namespace", "container", "id", "image"]


@pytest.mark.parametrize("details", [V1_MEMORY, V2_MEMORY], ids=["v1", "v2"])
def test_every_sample_has_the_labels_of_its_descriptor(details: dict[str, int]) -> None:
    counters = dict.fromkeys(
        [f"{way}_{kind}" for way in ("rx", "tx") for kind in ("bytes", "packets")], 1
    ) | dict.fromkeys(["rx_errors", "tx_errors", "rx_dropped", "tx_dropped"], 0)
    one = container(full(details), open_files=OpenFiles(30, 2), cpu_quota=20000)
    made = cri_metrics.sandbox_metrics(sample(one, eth0=counters, net1=counters))
    keys = {d.name: len(d.label_keys) for d in cri_metrics.descriptors()}
    (inner,) = made.container_metrics
    assert (made.pod_sandbox_id, inner.container_id) == ("s" * 64, "c" * 64)
    everything = [*made.metrics, *inner.metrics]
    assert {m.name for m in everything} == set(keys)
    assert all(len(m.label_values) == keys[m.name] for m in everything)
    series = Counter((m.name, *m.label_values) for m in everything)
    assert set(series.values()) == {1}
    assert {m.timestamp for m in made.metrics} == {9}
    assert {m.timestamp for m in inner.metrics} == {2000 * SECOND + 5}
    assert list(inner.metrics[0].label_values) == [
        *("web", "shop", "main", "c" * 64, "registry/app:1", "total")
    ]
    assert {tuple(m.label_values) for m in made.metrics} == {
        ("web", "shop", "", "s" * 64, "", interface) for interface in ("eth0", "net1")
    }


@pytest.mark.parametrize("details", [V1_MEMORY, V2_MEMORY], ids=["v1", "v2"])
def test_both_versions_of_cgroups_give_the_same_values(details: dict[str, int]) -> None:
    limits = {
        "cpu_quota": 20000,
        "cpu_period": 50000,
        "cpu_shares": 512,
        "memory": 4096,
        "memory_swap": 8192,
        "memory_reservation": 2048,
    }
    one = container(full(details), open_files=OpenFiles(30, 2), **limits)
    made = cri_metrics.sandbox_metrics(sample(one)).container_metrics[0]
    got = values(made)
    scope = {"container": 4 if "total_rss" in details else 14, "hierarchy": 14}
    assert got == {
        ("cpu_usage_seconds_total", "total"): 7,
        ("cpu_user_seconds_total",): 4,
        ("cpu_system_seconds_total",): 2,
        ("cpu_cfs_periods_total",): 50,
        ("cpu_cfs_throttled_periods_total",): 20,
        ("cpu_cfs_throttled_seconds_total",): 2,
        ("memory_usage_bytes",): 500,
        ("memory_working_set_bytes",): 400,
        ("memory_max_usage_bytes",): 600,
        ("memory_rss",): 12,
        ("memory_cache",): 11,
        ("memory_mapped_file",): 13,
        ("memory_swap",): 8,
        ("memory_kernel_usage",): 21,
        ("memory_total_active_file_bytes",): 16,
        ("memory_total_inactive_file_bytes",): 100,
        ("memory_failcnt",): 9,
        **{("memory_failures_total", "pgfault", key): value for key, value in scope.items()},
        **{("memory_failures_total", "pgmajfault", key): v + 1 for key, v in scope.items()},
        ("oom_events_total",): 1,
        ("hugetlb_usage_bytes", "2MB"): 2048,
        ("hugetlb_max_usage_bytes", "2MB"): 4096,
        ("fs_usage_bytes", "/dev/sda1"): 77,
        ("fs_limit_bytes", "/dev/sda1"): 1000,
        ("fs_inodes_total", "/dev/sda1"): 100,
        ("fs_inodes_free", "/dev/sda1"): 60,
        ("fs_reads_bytes_total", "/dev/sda"): 1,
        ("fs_writes_bytes_total", "/dev/sda"): 2,
        ("fs_reads_total", "/dev/sda"): 3,
        ("fs_writes_total", "/dev/sda"): 4,
        ("blkio_device_usage_total", "/dev/sda", "8", "0", "Read"): 1,
        ("blkio_device_usage_total", "/dev/sda", "8", "0", "Write"): 2,
        ("processes",): 2,
        ("threads",): 5,
        ("threads_max",): 64,
        ("file_descriptors",): 30,
        ("sockets",): 2,
        ("ulimits_soft", "max_open_files"): 1024,
        **{(f"pressure_{r}_waiting_seconds_total",): 3 for r in ("cpu", "memory", "io")},
        **{(f"pressure_{r}_stalled_seconds_total",): 1 for r in ("cpu", "memory", "io")},
        ("spec_cpu_period",): 50000,
        ("spec_cpu_quota",): 20000,
        ("spec_cpu_shares",): 512,
        ("spec_memory_limit_bytes",): 4096,
        ("spec_memory_reservation_limit_bytes",): 2048,
        ("spec_memory_swap_limit_bytes",): 8192,
        ("start_time_seconds",): 1700,
        ("last_seen",): 2000,
    }
    for metric in made.metrics:
        is_counter = metric.name.endswith("_total") or metric.name == "container_memory_failcnt"
        is_counter = is_counter and metric.name != "container_fs_inodes_total"
        assert metric.metric_type == (api_pb2.COUNTER if is_counter else api_pb2.GAUGE), metric.name


def test_a_value_that_is_not_known_has_no_sample() -> None:
    unlimited = {"memory": 0, "memory_swap": -1, "cpu_quota": -1}
    one = container(Stats(), **unlimited)._replace(layer=None, files_limit=None)
    got = values(cri_metrics.sandbox_metrics(sample(one)).container_metrics[0])
    names = {name for name, *_ in got}
    absent = {
        *("file_descriptors", "sockets", "ulimits_soft", "fs_usage_bytes", "spec_cpu_quota"),
        *("hugetlb_usage_bytes", "blkio_device_usage_total", "pressure_cpu_stalled_seconds_total"),
    }
    assert not names & absent
    assert got["spec_memory_limit_bytes",] == got["spec_memory_swap_limit_bytes",] == 0
    assert (got["spec_cpu_period",], got["spec_cpu_shares",]) == (100_000, 1024)
    assert (got["threads_max",], got["memory_working_set_bytes",]) == (0, 0)
    assert not cri_metrics.sandbox_metrics(sample(one)).metrics
