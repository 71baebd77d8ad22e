"""The usage of containers as statistics of CRI. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.features.kubernetes.cri import cri_status
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.metrics.container_metrics import hierarchical, rss, working_set

if TYPE_CHECKING:
    from jaula.cgroups.cgroup_driver import Pressure
    from jaula.features.metrics.pod_usage import CgroupUsage, ContainerUsage, SandboxUsage
    from jaula.spec.api_documents import HostConfig
    from jaula.state.container_records import ContainerRecord

_DEFAULT_INTERFACE = "eth0"


def container_stats(usage: ContainerUsage) -> api_pb2.ContainerStats:
    """Return the statistics of a container."""
    record = usage.record
    assert record.pod is not None
    made = api_pb2.ContainerStats(
        attributes=api_pb2.ContainerAttributes(
            id=record.id,
            metadata=api_pb2.ContainerMetadata(name=record.pod.name, attempt=record.pod.attempt),
            labels=record.pod.labels,
            annotations=record.pod.annotations,
        )
    )
    if usage.cgroup is not None:
        _set_usage(made, usage.cgroup, usage.cpu_rate)
        made.swap.timestamp = usage.cgroup.moment
        swap = usage.cgroup.stats.memory.swap
        made.swap.swap_usage_bytes.value = swap
        if (limit := swap_limit(record.host_config)) is not None:
            made.swap.swap_available_bytes.value = max(limit - swap, 0)
    if usage.layer is not None:
        made.writable_layer.timestamp = usage.layer.moment
        made.writable_layer.fs_id.mountpoint = usage.directory
        made.writable_layer.used_bytes.value = usage.layer.usage.size
        made.writable_layer.inodes_used.value = usage.layer.usage.inodes
    return made


def sandbox_stats(usage: SandboxUsage) -> api_pb2.PodSandboxStats:
    """Return the statistics of a pod, with those of its containers."""
    record = usage.record
    assert record.sandbox is not None
    request = record.sandbox.request
    made = api_pb2.PodSandboxStats(
        attributes=api_pb2.PodSandboxAttributes(
            id=record.id,
            metadata=cri_status.sandbox(record).metadata,
            labels=request.labels,
            annotations=request.annotations,
        )
    )
    linux = made.linux
    linux.SetInParent()  # a kubelet dereferences it without a check
    linux.containers.extend(container_stats(member) for member in usage.containers)
    if usage.cgroup is not None:
        _set_usage(linux, usage.cgroup, usage.cpu_rate)
        linux.process.timestamp = usage.cgroup.moment
        linux.process.process_count.value = usage.cgroup.stats.pids.current
    if usage.networks:
        linux.network.timestamp = usage.moment
        for name, counters in usage.networks.items():
            interface = linux.network.interfaces.add(name=name)
            for field in ("rx_bytes", "rx_errors", "tx_bytes", "tx_errors"):
                getattr(interface, field).value = counters[field]
        # A kubelet dereferences the default interface of each network without a check.
        default = [i for i in linux.network.interfaces if i.name == _DEFAULT_INTERFACE]
        linux.network.default_interface.CopyFrom((default or linux.network.interfaces)[0])
    return made


def matches_sandbox(filter: api_pb2.PodSandboxStatsFilter, record: ContainerRecord) -> bool:
    """Return whether a pod is selected. The id may be a prefix."""
    assert record.sandbox is not None
    return record.id.startswith(filter.id) and cri_status.has_labels(
        record.sandbox.request.labels, filter.label_selector
    )


def _set_usage(
    made: api_pb2.ContainerStats | api_pb2.LinuxPodSandboxStats,
    cgroup: CgroupUsage,
    cpu_rate: int | None,
) -> None:
    cpu, memory = cgroup.stats.cpu, cgroup.stats.memory
    made.cpu.timestamp = made.memory.timestamp = cgroup.moment
    made.cpu.usage_core_nano_seconds.value = cpu.usage
    if cpu_rate is not None:
        made.cpu.usage_nano_cores.value = cpu_rate
    made.memory.usage_bytes.value = memory.usage
    made.memory.working_set_bytes.value = working_set(memory)
    if memory.limit is not None:
        made.memory.available_bytes.value = max(memory.limit - working_set(memory), 0)
    made.memory.rss_bytes.value = rss(memory)
    made.memory.page_faults.value = hierarchical(memory, "pgfault")
    made.memory.major_page_faults.value = hierarchical(memory, "pgmajfault")
    if cpu.pressure is not None:
        _set_pressure(made.cpu.psi, cpu.pressure)
    if memory.pressure is not None:
        _set_pressure(made.memory.psi, memory.pressure)
    if (pressure := cgroup.stats.blkio.pressure) is not None:
        made.io.timestamp = cgroup.moment
        _set_pressure(made.io.psi, pressure)


def _set_pressure(made: api_pb2.PsiStats, pressure: Pressure) -> None:
    for data, line in ((made.Full, pressure.full), (made.Some, pressure.some)):
        data.Total = line.total * 1000  # nanoseconds
        data.Avg10, data.Avg60, data.Avg300 = line.avg10, line.avg60, line.avg300


def swap_limit(limits: HostConfig) -> int | None:
    """Return the bytes of swap that a container may use; None without a limit.

    The limit of a request is that of memory and swap together. Without one it is twice the memory.
    """
    if limits.memory <= 0 or limits.memory_swap < 0:
        return None
    return max((limits.memory_swap or 2 * limits.memory) - limits.memory, 0)


def matches(filter: api_pb2.ContainerStatsFilter, record: ContainerRecord) -> bool:
    """Return whether a container is selected. Ids may be prefixes."""
    return (
        record.pod is not None
        and record.id.startswith(filter.id)
        and record.pod.sandbox.startswith(filter.pod_sandbox_id)
        and cri_status.has_labels(record.pod.labels, filter.label_selector)
    )
