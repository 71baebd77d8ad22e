"""The usage of containers as statistics of CRI. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.cri import status
from jaula.cri.proto import api_pb2 as api

if TYPE_CHECKING:
    from jaula.cgroups.protocol import Stats
    from jaula.engine.pods.stats import ContainerUsage, SandboxUsage
    from jaula.state.records import ContainerRecord

_DEFAULT_INTERFACE = "eth0"


def container_stats(usage: ContainerUsage) -> api.ContainerStats:
    """Return the statistics of a container."""
    record = usage.record
    assert record.pod is not None
    made = api.ContainerStats(
        attributes=api.ContainerAttributes(
            id=record.id,
            metadata=api.ContainerMetadata(name=record.pod.name, attempt=record.pod.attempt),
            labels=record.pod.labels,
            annotations=record.pod.annotations,
        )
    )
    if usage.stats is not None:
        _set_usage(made, usage.stats, usage.moment)
    if usage.layer is not None:
        made.writable_layer.timestamp = usage.moment
        made.writable_layer.fs_id.mountpoint = usage.directory
        made.writable_layer.used_bytes.value = usage.layer.size
        made.writable_layer.inodes_used.value = usage.layer.inodes
    return made


def sandbox_stats(usage: SandboxUsage) -> api.PodSandboxStats:
    """Return the statistics of a pod, with those of its containers."""
    record = usage.record
    assert record.sandbox is not None
    request = record.sandbox.request
    made = api.PodSandboxStats(
        attributes=api.PodSandboxAttributes(
            id=record.id,
            metadata=status.sandbox(record).metadata,
            labels=request.labels,
            annotations=request.annotations,
        )
    )
    linux = made.linux
    linux.containers.extend(container_stats(member) for member in usage.containers)
    if usage.stats is not None:
        _set_usage(linux, usage.stats, usage.moment)
        linux.process.timestamp = usage.moment
        linux.process.process_count.value = usage.stats.pids.current
    if usage.networks:
        linux.network.timestamp = usage.moment
        for name, counters in usage.networks.items():
            interface = api.NetworkInterfaceUsage(name=name)
            for field in ("rx_bytes", "rx_errors", "tx_bytes", "tx_errors"):
                getattr(interface, field).value = counters[field]
            if name == _DEFAULT_INTERFACE:
                linux.network.default_interface.CopyFrom(interface)
            linux.network.interfaces.append(interface)
    return made


def matches_sandbox(filter: api.PodSandboxStatsFilter, record: ContainerRecord) -> bool:
    """Return whether a pod is selected. The id may be a prefix."""
    assert record.sandbox is not None
    return record.id.startswith(filter.id) and status.has_labels(
        record.sandbox.request.labels, filter.label_selector
    )


def _set_usage(
    made: api.ContainerStats | api.LinuxPodSandboxStats, stats: Stats, moment: int
) -> None:
    cpu, memory = stats.cpu, stats.memory
    made.cpu.timestamp = made.memory.timestamp = moment
    made.cpu.usage_core_nano_seconds.value = cpu.usage
    made.memory.usage_bytes.value = memory.usage
    working_set = max(memory.usage - memory.inactive_file, 0)
    made.memory.working_set_bytes.value = working_set
    if memory.limit is not None:
        made.memory.available_bytes.value = max(memory.limit - working_set, 0)
    details = memory.details
    made.memory.rss_bytes.value = details.get("anon", details.get("rss", 0))
    made.memory.page_faults.value = details.get("pgfault", 0)
    made.memory.major_page_faults.value = details.get("pgmajfault", 0)


def matches(filter: api.ContainerStatsFilter, usage: ContainerUsage) -> bool:
    """Return whether a container is selected. Ids may be prefixes."""
    pod = usage.record.pod
    return (
        pod is not None
        and usage.record.id.startswith(filter.id)
        and pod.sandbox.startswith(filter.pod_sandbox_id)
        and status.has_labels(pod.labels, filter.label_selector)
    )
