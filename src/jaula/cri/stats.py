"""The usage of containers as statistics of CRI. Pure."""

from __future__ import annotations

from jaula.cri.proto import api_pb2 as api
from jaula.engine.pods.stats import ContainerUsage


def container_stats(usage: ContainerUsage, root: str) -> api.ContainerStats:
    """Return the statistics of a container. ``root`` is the directory of the engine's storage."""
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
        cpu, memory = usage.stats.cpu, usage.stats.memory
        made.cpu.timestamp = made.memory.timestamp = usage.moment
        made.cpu.usage_core_nano_seconds.value = cpu.usage
        made.memory.usage_bytes.value = memory.usage
        made.memory.working_set_bytes.value = max(memory.usage - memory.inactive_file, 0)
        if memory.limit is not None:
            made.memory.available_bytes.value = max(
                memory.limit - made.memory.working_set_bytes.value, 0
            )
        details = memory.details
        made.memory.rss_bytes.value = details.get("anon", details.get("rss", 0))
        made.memory.page_faults.value = details.get("pgfault", 0)
        made.memory.major_page_faults.value = details.get("pgmajfault", 0)
    if usage.layer is not None:
        made.writable_layer.timestamp = usage.moment
        made.writable_layer.fs_id.mountpoint = root
        made.writable_layer.used_bytes.value = usage.layer.size
        made.writable_layer.inodes_used.value = usage.layer.inodes
    return made


def matches(filter: api.ContainerStatsFilter, usage: ContainerUsage) -> bool:
    """Return whether a container is selected. Ids may be prefixes."""
    pod = usage.record.pod
    return (
        pod is not None
        and usage.record.id.startswith(filter.id)
        and pod.sandbox.startswith(filter.pod_sandbox_id)
        and all(pod.labels.get(key) == value for key, value in filter.label_selector.items())
    )
