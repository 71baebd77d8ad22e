"""LinuxContainerResources as limits of the engine, and the limits of records as that message. Pure.

0 and '' are not set. The kubelet repeats all limits of a container at an update. With cgroup v2 it
sends limits of swap, and of memory that is reclaimed, in ``unified``.
"""

from __future__ import annotations

from typing import Any

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.spec.pod import PodContainerUpdate, PodLimits
from jaula.state.container_records import ContainerRecord


def container_limits(limits: api_pb2.LinuxContainerResources) -> dict[str, Any]:
    """Return the limits by the names that a container's creation and its update share.

    A limit of memory without one of memory and swap together means no swap, as in containerd.
    """
    return {
        "cpu_period": limits.cpu_period,
        "cpu_quota": limits.cpu_quota,
        "cpu_shares": limits.cpu_shares,
        "cpuset_cpus": limits.cpuset_cpus,
        "cpuset_mems": limits.cpuset_mems,
        "memory": limits.memory_limit_in_bytes,
        "memory_swap": limits.memory_swap_limit_in_bytes or limits.memory_limit_in_bytes,
    }


def container_update(limits: api_pb2.LinuxContainerResources) -> PodContainerUpdate:
    """Return the update of a container's limits.

    :raises InvalidRequest: when a page size has two limits.
    """
    return PodContainerUpdate(
        **container_limits(limits),
        oom_score_adj=limits.oom_score_adj or None,
        unified=dict(limits.unified),
        hugepage_limits=hugepage_limits(limits),
    )


def hugepage_limits(limits: api_pb2.LinuxContainerResources) -> dict[str, int]:
    """Return the limits of huge pages in bytes, by page size.

    :raises InvalidRequest: when a page size has two limits.
    """
    by_size = {limit.page_size: limit.limit for limit in limits.hugepage_limits}
    if len(by_size) < len(limits.hugepage_limits):
        raise InvalidRequest("a size of huge pages has more than one limit")
    return by_size


def pod_limits(
    message: api_pb2.LinuxPodSandboxConfig | api_pb2.UpdatePodSandboxResourcesRequest, field: str
) -> PodLimits | None:
    """Return the limits in the field ``resources`` or ``overhead``, None without it.

    :raises InvalidRequest: when a page size has two limits.
    """
    if not message.HasField(field):
        return None
    limits: api_pb2.LinuxContainerResources = getattr(message, field)
    return PodLimits(
        cpu_period=limits.cpu_period,
        cpu_quota=limits.cpu_quota,
        cpu_shares=limits.cpu_shares,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        memory=limits.memory_limit_in_bytes,
        memory_swap=limits.memory_swap_limit_in_bytes,
        oom_score_adj=limits.oom_score_adj,
        hugepage_limits=hugepage_limits(limits),
        unified=dict(limits.unified),
    )


def reported(record: ContainerRecord) -> api_pb2.LinuxContainerResources:
    """Return the limits of a container, as its creation and its updates have set them."""
    limits, pod = record.host_config, record.resolved.pod_resources
    return api_pb2.LinuxContainerResources(
        cpu_period=limits.cpu_period,
        cpu_quota=limits.cpu_quota,
        cpu_shares=limits.cpu_shares,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        memory_limit_in_bytes=limits.memory,
        memory_swap_limit_in_bytes=limits.memory_swap,
        oom_score_adj=limits.oom_score_adj,
        hugepage_limits=[
            api_pb2.HugepageLimit(page_size=size, limit=limit)
            for size, limit in pod.hugepage_limits.items()
        ],
        unified=pod.unified,
    )
