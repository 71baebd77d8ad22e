"""``docker update``: apply new limits to the present ones. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from jaula.engine.oci_spec import spec_resources
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import Conflict
from jaula.spec import api_documents
from jaula.spec.api_documents import ContainerCreate, ContainerUpdate, HostConfig
from jaula.spec.pod import PodContainerUpdate
from jaula.spec.runtime_spec import Resources
from jaula.state.container_records import ContainerRecord, ResolvedRequest


class Update(NamedTuple):
    """The result of an update; ``limits`` are to be written to the cgroup, None for no change."""

    body: ContainerCreate
    resolved: ResolvedRequest
    limits: Resources | None
    warnings: tuple[str, ...]
    oom_score_adj: int | None  # for the processes of the container; None for no change

    @property
    def changes_processes(self) -> bool:
        """Whether a running container has other limits or another OOM score than before."""
        return self.limits is not None or self.oom_score_adj is not None


def fields_of(update: ContainerUpdate) -> frozenset[str]:
    """Return the names of the limits that an update sets."""
    return frozenset(_changes(update))


def updated_resources(old: HostConfig, update: ContainerUpdate) -> HostConfig:
    """Return the limits with those that an update sets."""
    return msgspec.structs.replace(old, **_changes(update))


def _changes(update: ContainerUpdate) -> dict[str, Any]:
    """Return the fields that an update sets."""
    unset = ContainerUpdate()
    return {
        field: value
        for field in api_documents.Resources.__struct_fields__
        if (value := getattr(update, field)) != getattr(unset, field)
    }


def _check_cpu_time(old: HostConfig, update: api_documents.Resources) -> None:
    """Check that an update has the notation of the present limit of CPU time.

    :raises Conflict: when it has another one.
    """
    for new, present, name, other in (
        (update.nano_cpus, old.cpu_period, "Nano CPUs", "CPU Period"),
        (update.nano_cpus, old.cpu_quota, "Nano CPUs", "CPU Quota"),
        (update.cpu_period, old.nano_cpus, "CPU Period", "NanoCPUs"),
        (update.cpu_quota, old.nano_cpus, "CPU Quota", "NanoCPUs"),
    ):
        if new > 0 and present > 0:
            raise Conflict(
                f"Conflicting options: {name} cannot be updated as {other} has already been set"
            )


def _check_memory(old: HostConfig, update: api_documents.Resources) -> None:
    """Check that the present limit of memory and swap exceeds a new limit of memory.

    :raises Conflict: when it does not.
    """
    swap = old.memory_swap or old.memory * 2
    if update.memory > 0 and not update.memory_swap and 0 < swap < update.memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the"
            " memoryswap at the same time"
        )


def merge_limits(record: ContainerRecord, update: ContainerUpdate, host: HostFacts) -> Update:
    """Return the container's request and its resolved request with the update applied.

    Of the resolved request only the limits of a pod's container change.

    :raises InvalidRequest: when the result is not valid.
    :raises Conflict: when the present limits do not allow the change.
    """
    spec_resources.check_cpu_time(update)
    old, pod = record.host_config, record.resolved.pod_resources
    try:
        _check_cpu_time(old, update)
        _check_memory(old, update)
    except Conflict as error:
        raise Conflict(f"Cannot update container {record.id}: {error.message}") from None
    changed = _changes(update)
    if update.memory > 0 and not update.memory_swap and not old.memory_swap and old.memory > 0:
        changed["memory_swap"] = old.memory * 2  # the limit that is in effect stays
    merged = msgspec.structs.replace(old, **changed)
    score = old.oom_score_adj
    if isinstance(update, PodContainerUpdate):
        pod = spec_resources.with_pod_limits(pod, update, host)
        score = score if update.oom_score_adj is None else update.oom_score_adj
        spec_resources.check_oom_score(score)
    host_config = msgspec.structs.replace(merged, oom_score_adj=score)
    if update.restart_policy.name:
        host_config = msgspec.structs.replace(host_config, restart_policy=update.restart_policy)
    warnings = spec_resources.check(merged, host, pod)
    limits = spec_resources.change(update, old, merged, host, pod)
    return Update(
        msgspec.structs.replace(record.body, host_config=host_config),
        msgspec.structs.replace(record.resolved, pod_resources=pod),
        None if limits == Resources() else limits,
        warnings,
        score if score != old.oom_score_adj else None,
    )
