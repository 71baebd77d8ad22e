"""``docker update``: apply new limits to the present ones. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from jaula.engine.oci_spec import resources
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import Conflict
from jaula.spec import api
from jaula.spec.api import ContainerCreate, ContainerUpdate
from jaula.spec.runtime import Resources
from jaula.state.records import ContainerRecord, ResolvedRequest, ResourceLimits


class Update(NamedTuple):
    """The result of an update; ``limits`` are to be written to the cgroup, None for no change."""

    body: ContainerCreate
    resolved: ResolvedRequest
    limits: Resources | None
    warnings: tuple[str, ...]


def updated_resources(old: ResourceLimits, update: ContainerUpdate) -> ResourceLimits:
    """Return the limits with those that an update sets."""
    return msgspec.structs.replace(old, **_changes(update))


def _changes(update: ContainerUpdate) -> dict[str, Any]:
    """Return the fields that an update sets."""
    unset = ContainerUpdate()
    changed = {
        field: value
        for field in api.Resources.__struct_fields__
        if (value := getattr(update, field)) != getattr(unset, field)
    }
    if update.nano_cpus:
        changed |= {"cpu_quota": 0, "cpu_period": 0}
    elif update.cpu_quota or update.cpu_period:
        changed |= {"nano_cpus": 0}
    return changed


def merge_limits(record: ContainerRecord, update: ContainerUpdate, host: HostFacts) -> Update:
    """Return the container's request and its resolved request with the update applied.

    Of the resolved request only the resources change.

    :raises InvalidRequest: when the result is not valid.
    :raises Conflict: when the present memory-swap limit does not allow the memory limit.
    """
    old = record.resolved.resources
    changed = _changes(update)
    if (
        update.memory > 0
        and not update.memory_swap
        and 0 < (old.memory_swap or old.memory * 2) < update.memory
    ):
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the"
            " memoryswap at the same time"
        )
    if update.memory > 0 and not update.memory_swap and not old.memory_swap and old.memory > 0:
        changed["memory_swap"] = old.memory * 2  # the limit that is in effect stays
    merged = msgspec.structs.replace(old, **changed)
    host_config = msgspec.structs.replace(record.body.host_config, **changed)
    if update.restart_policy.name:
        host_config = msgspec.structs.replace(host_config, restart_policy=update.restart_policy)
    warnings = resources.check(merged, host)
    limits = resources.change(update, old, merged, host)
    return Update(
        msgspec.structs.replace(record.body, host_config=host_config),
        msgspec.structs.replace(record.resolved, resources=merged),
        None if limits == Resources() else limits,
        warnings,
    )
