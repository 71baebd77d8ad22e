"""The usage of pods and their containers: CPU time, memory, processes, network, writable layer.

The functions that read files are synchronous. The service calls them in a thread, for several
containers at a time.

Facts about cgroups: a cgroup that is removed while its files are read gives zeros, since an absent
file counts zero. So the processes are read last. If there is none, the container has ended, and it
has no usage.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from jaula.cgroups.cgroup_driver import CpuStats, MemoryStats, PidsStats, Stats
from jaula.engine.containers.container_cgroup import cgroup_path
from jaula.engine.containers.container_stats import interface_counters
from jaula.engine.userns import join
from jaula.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from weakref import WeakKeyDictionary

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord
    from jaula.storage.drivers.storage_driver import SnapshotUsage

_NANOSECONDS = 1_000_000_000
_RATE_INTERVAL = 1_000_000_000  # nanoseconds; a shorter one gives a rate that jumps
_INTERFACES = 64
_LAYER_PAUSE = 10  # times the CPU time of a walk


class CpuSample(NamedTuple):
    """CPU time at a moment, both in nanoseconds, and the rate until then.

    ``rate`` is in nanoseconds of CPU time per second; None without an earlier sample.
    """

    usage: int
    moment: int
    rate: int | None


class LayerSample(NamedTuple):
    """The usage of a writable layer at a moment, and the CPU time of its walk, in nanoseconds."""

    usage: SnapshotUsage
    moment: int
    cost: int


class CgroupUsage(NamedTuple):
    """The statistics of a cgroup at a moment, in nanoseconds since the epoch, and its processes."""

    stats: Stats
    moment: int
    pids: tuple[int, ...]


class ContainerUsage(NamedTuple):
    """The usage of one container.

    ``cgroup`` is None if it does not run, ``layer`` if it is being removed. ``cpu_rate`` is that of
    :class:`CpuSample`. ``directory`` is that of the engine's files, among them the writable layer.
    """

    record: ContainerRecord
    cgroup: CgroupUsage | None
    cpu_rate: int | None
    layer: LayerSample | None
    directory: str


class SandboxUsage(NamedTuple):
    """The usage of a pod. ``moment`` is in nanoseconds since the epoch.

    ``cgroup`` is that of the pod, or the sum of its containers if the pod has none. ``networks``
    has the counters of each interface; it is empty for a pod on the host's network.
    """

    record: ContainerRecord
    moment: int
    cgroup: CgroupUsage | None
    cpu_rate: int | None
    networks: Mapping[str, Mapping[str, int]]
    containers: Sequence[ContainerUsage]


class PodStats:
    """Reads the usage of pods. It keeps the last sample of each container while this exists."""

    def __init__(self, services: Services) -> None:
        from weakref import WeakKeyDictionary

        self._services = services
        self._rates: WeakKeyDictionary[Container, CpuSample] = WeakKeyDictionary()
        self._layers: WeakKeyDictionary[Container, LayerSample] = WeakKeyDictionary()

    def container(self, container: Container) -> ContainerUsage:
        """Return the usage of a container."""
        record = container.record
        cgroup = self.cgroup(container)
        return ContainerUsage(
            record,
            cgroup,
            self._rate(container, cgroup),
            self.layer(container),
            str(self._services.config.paths.root),
        )

    def sandbox(self, sandbox: Container, members: Sequence[Container]) -> SandboxUsage:
        """Return the usage of a pod with these containers."""
        record = sandbox.record
        containers = [self.container(member) for member in members]
        cgroup = None
        if sandbox.live:
            if record.host_config.cgroup_parent:
                cgroup = self._read(cgroup_path(self._services, record).rpartition("/")[0])
            else:
                parts = (self.cgroup(sandbox), *(member.cgroup for member in containers))
                cgroup = total(parts)
        return SandboxUsage(
            record,
            time.time_ns(),
            cgroup,
            self._rate(sandbox, cgroup),
            self.networks(sandbox),
            containers,
        )

    def cgroup(self, container: Container, *, detailed: bool = False) -> CgroupUsage | None:
        """Return the usage of a container's cgroup; None if it does not run."""
        if not container.live:
            return None
        return self._read(cgroup_path(self._services, container.record), detailed=detailed)

    def brief(self, container: Container) -> CgroupUsage | None:
        """Return the usage as :meth:`cgroup` does, from fewer files."""
        if not container.live:
            return None
        try:
            usage = self._services.cgroups.usage(cgroup_path(self._services, container.record))
        except NotFound:
            return None  # it has just exited
        return CgroupUsage(usage.stats, time.time_ns(), usage.pids) if usage.pids else None

    def _read(self, path: str, *, detailed: bool = False) -> CgroupUsage | None:
        # On v1 the details have nothing of use here, and take twice as long as the rest.
        detailed = detailed or self._services.cgroups.version == 2
        try:
            with self._services.cgroups.open(path) as cgroup:
                stats, moment = cgroup.stats(detailed=detailed), time.time_ns()
                pids = cgroup.pids()
        except NotFound:
            return None  # it has just exited
        return CgroupUsage(stats, moment, pids) if pids else None

    def networks(self, sandbox: Container) -> Mapping[str, Mapping[str, int]]:
        """Return the counters of a pod's first interfaces; none if it has the host's.

        A pod with CAP_NET_ADMIN can make any number of them, and a kubelet refuses long answers.
        """
        record = sandbox.record
        if not sandbox.live or record.resolved.namespaces.net.host:
            return {}
        pid = join.process_in(sandbox, "network")
        return dict(islice(interface_counters(pid).items(), _INTERFACES))

    def layer(self, container: Container) -> LayerSample | None:
        """Return the usage of a writable layer; None if it is being removed.

        A layer with millions of files is not walked at each call, see :func:`is_current`.
        """
        last = self._layers.get(container)
        if last is not None and is_current(last, time.time_ns()):
            return last
        start = time.thread_time_ns()
        try:
            usage = self._services.snapshots.usage(container.id)
        except NotFound:
            return None
        sample = LayerSample(usage, time.time_ns(), time.thread_time_ns() - start)
        self._layers[container] = sample
        return sample

    def last_layer(self, container: Container) -> LayerSample | None:
        """Return the last known usage of a writable layer, without a walk."""
        return self._layers.get(container)

    def _rate(self, container: Container, cgroup: CgroupUsage | None) -> int | None:
        if cgroup is None:
            return None
        last = self._rates.get(container)
        sample = next_sample(last, cgroup.stats.cpu.usage, cgroup.moment)
        self._rates[container] = sample
        return sample.rate


def next_sample(last: CpuSample | None, usage: int, moment: int) -> CpuSample:
    """Return the sample that is kept after CPU time was read. Pure.

    A sample stays for one second, so that several clients do not shorten each other's interval. A
    clock that was set back, or CPU time that decreases, starts again.
    """
    if last is None or usage < last.usage or moment < last.moment:
        return CpuSample(usage, moment, None)
    interval = moment - last.moment
    if interval < _RATE_INTERVAL:
        return last
    return CpuSample(usage, moment, (usage - last.usage) * _NANOSECONDS // interval)


def is_current(sample: LayerSample, now: int) -> bool:
    """Return whether a layer is not walked again yet. Pure.

    The pause is ten times the CPU time of the last walk, so a container with millions of files
    takes a tenth of a processor at most.
    """
    return 0 <= now - sample.moment < _LAYER_PAUSE * sample.cost


def total(parts: Sequence[CgroupUsage | None]) -> CgroupUsage | None:
    """Return the sum of the cgroups that exist, without limits and pressure. Pure."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    all_stats = [part.stats for part in present]
    memories = [stats.memory for stats in all_stats]
    details: dict[str, int] = {}
    for memory in memories:
        for key, value in memory.details.items():
            details[key] = details.get(key, 0) + value
    stats = Stats(
        cpu=CpuStats(usage=sum(stats.cpu.usage for stats in all_stats)),
        memory=MemoryStats(
            usage=sum(memory.usage for memory in memories),
            swap=sum(memory.swap for memory in memories),
            inactive_file=sum(memory.inactive_file for memory in memories),
            details=details,
        ),
        pids=PidsStats(current=sum(stats.pids.current for stats in all_stats)),
    )
    pids = tuple(pid for part in present for pid in part.pids)
    return CgroupUsage(stats, max(part.moment for part in present), pids)
