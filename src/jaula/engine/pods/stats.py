"""What the containers of pods use: CPU time, memory, swap, processes and their writable layer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from jaula.engine.containers.start import cgroup_path, open_cgroup
from jaula.engine.containers.stats import interface_counters
from jaula.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaula.cgroups.protocol import Stats
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.records import ContainerRecord
    from jaula.storage.drivers.driver import SnapshotUsage


class ContainerUsage(NamedTuple):
    """The usage of one container at a moment, in nanoseconds since the epoch.

    ``stats`` is None if it does not run, ``layer`` if it is being removed. ``directory`` is that of
    the engine's files, among them the writable layer.
    """

    record: ContainerRecord
    moment: int
    stats: Stats | None
    layer: SnapshotUsage | None
    directory: str


class SandboxUsage(NamedTuple):
    """The usage of a pod at a moment, in nanoseconds since the epoch.

    ``stats`` is of the pod's cgroup, or of the sandbox alone if the pod has none. ``networks`` has
    the counters of each interface.
    """

    record: ContainerRecord
    moment: int
    stats: Stats | None
    networks: Mapping[str, Mapping[str, int]]
    containers: Sequence[ContainerUsage]


async def sandbox_usage_of(
    services: Services, sandbox: Container, members: Sequence[Container]
) -> SandboxUsage:
    """Return the usage of a pod."""
    containers = [await usage_of(services, member) for member in members]
    stats, networks = None, {}
    if sandbox.live:
        record = sandbox.record
        path = record.resolved.resources.cgroup_parent or cgroup_path(services, record)
        try:
            with services.cgroups.open(f"/{path.strip('/')}") as cgroup:
                stats = cgroup.stats()
        except NotFound:
            pass  # it has just exited
        networks = interface_counters(record.pid)
    return SandboxUsage(sandbox.record, time.time_ns(), stats, networks, containers)


async def usage_of(services: Services, container: Container) -> ContainerUsage:
    """Return the usage of a container. Its layer is measured in a thread."""
    stats = None
    if container.live:
        try:
            with open_cgroup(services, container.record) as cgroup:
                stats = cgroup.stats()
        except NotFound:
            pass  # it has just exited
    try:
        layer = await asyncio.to_thread(services.snapshots.usage, container.id)
    except NotFound:
        layer = None
    directory = str(services.config.paths.root)
    return ContainerUsage(container.record, time.time_ns(), stats, layer, directory)
