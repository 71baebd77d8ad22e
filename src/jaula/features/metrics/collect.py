"""Samples of all running containers for one scrape. The functions that read files run in a thread.

A thread that holds the interpreter delays the event loop by five milliseconds. So the work is done
in slices of three, with a sleep after each (:class:`Slices`).

A container decides how long the walk of its writable layer takes. So a thread of its own walks the
layers after each scrape, those first that were walked longest ago. A scrape has the last known
sizes.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from jaula.engine.containers.container_cgroup import cgroup_path
from jaula.engine.containers.container_stats import interface_counters
from jaula.engine.userns import join
from jaula.features.metrics.exposition import label_name, labels
from jaula.features.metrics.pod_samples import (
    ContainerSample,
    device_name,
    files_limit,
    read_file_system,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.metrics.pod_samples import Device, FileSystem
    from jaula.features.metrics.pod_usage import PodStats
    from jaula.state.container_records import ContainerRecord

_SLICE = 0.003  # seconds of work before other threads get their turn
_PAUSE = 0.00005  # seconds; the kernel adds as much
MAX_CONTAINERS = 4096  # of a page; the youngest are left out
_INTERFACES = 8  # of a container: one with CAP_NET_ADMIN can make any number
_WALK_BUDGET = 0.2  # seconds of the walks of writable layers after a scrape


class Slices:
    """Work of one thread, cut into slices. Only a sleep lets another thread in for certain."""

    def __init__(self) -> None:
        self._end = time.monotonic() + _SLICE

    def step(self) -> None:
        """Sleep if the slice is over."""
        if time.monotonic() > self._end:
            time.sleep(_PAUSE)
            self._end = time.monotonic() + _SLICE


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Run a block without the collector of cyclic garbage, if it is on.

    A scrape allocates many objects, none of them in a cycle. They make a full collection due, which
    visits the objects of all containers and holds the interpreter meanwhile.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Sample(NamedTuple):
    """One running container. ``labels`` are in braces; ``networks`` is by interface."""

    usage: ContainerSample
    labels: str
    networks: Mapping[str, Mapping[str, int]]


class Target(NamedTuple):
    """A running container that a scrape reads, and its labels in braces."""

    container: Container
    labels: str


def targets(services: Services, allowed: Collection[str]) -> list[Target]:
    """Return the running containers with their labels. Call it in the event loop.

    ``allowed`` are the container labels that become labels of the metrics.
    """
    running = [c for c in services.container_store if c.live]
    running = running[:MAX_CONTAINERS]
    return [Target(c, labels(_labels(services, c.record, allowed))) for c in running]


def _labels(
    services: Services, record: ContainerRecord, allowed: Collection[str]
) -> dict[str, str]:
    own = record.body.labels
    named = {label_name(name): own[name] for name in allowed if name in own}
    pairs = {
        **dict(sorted(named.items())),
        "id": cgroup_path(services, record),
        "image": record.body.image,
        "name": record.name,
    }
    if (pod := services.container_store.pod_of(record)) is not None:
        name = record.pod.name if record.pod is not None else ""
        pairs |= {"container": name, "namespace": pod.namespace, "pod": pod.name}
    return pairs


class Collector:
    """Reads the containers, one scrape at a time."""

    def __init__(self, stats: PodStats, directory: str) -> None:
        """``directory`` is that of the writable layers."""
        self._stats = stats
        self._directory = directory
        self._walk: threading.Thread | None = None

    def collect(self, running: Sequence[Target], slices: Slices) -> list[Sample]:
        """Return the samples of those containers that still run."""
        file_system = read_file_system(self._directory)
        with without_collector():
            return self._collect(running, slices, file_system)

    def _collect(
        self, running: Sequence[Target], slices: Slices, file_system: FileSystem
    ) -> list[Sample]:
        names: dict[Device, str] = {}
        samples: list[Sample] = []
        for container, own in running:
            slices.step()
            usage = self._stats.brief(container)
            if usage is None:
                continue
            for entry in usage.stats.blkio.devices:
                if (entry.major, entry.minor) not in names:
                    names[entry.major, entry.minor] = device_name(entry.major, entry.minor)
            record, layer = container.record, self._stats.last_layer(container)
            limit = files_limit(join.process_in(container, "user"))
            sample = ContainerSample(record, usage, layer, None, limit, file_system, names)
            networks: dict[str, dict[str, int]] = {}
            if record.resolved.namespaces.net.private:
                network_pid = join.process_in(container, "network")
                networks = dict(islice(interface_counters(network_pid).items(), _INTERFACES))
            samples.append(Sample(sample, own, networks))
        return samples

    def start_walk(self, running: Sequence[Target]) -> None:
        """Walk writable layers in a thread of its own, unless the last one still does."""
        if self._walk is None or not self._walk.is_alive():
            containers = [target.container for target in running]
            self._walk = threading.Thread(
                target=self._walk_layers, args=(containers,), name="layer-walk", daemon=True
            )
            self._walk.start()

    def _walk_layers(self, containers: Sequence[Container]) -> None:
        def moment(container: Container) -> int:
            last = self._stats.last_layer(container)
            return 0 if last is None else last.moment

        slices = Slices()
        deadline = time.monotonic() + _WALK_BUDGET
        for container in sorted(containers, key=moment):
            slices.step()
            self._stats.layer(container)
            if time.monotonic() > deadline:
                return
