"""The pages of ``/metrics``: one collection at a time, kept for a second.

The event loop lists the running containers, a thread reads their files, and a thread writes the
page. So the event loop is never busy for longer than the list takes. Clients that ask during a
collection wait for the same one, also if they ask for another format.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import platform
import resource
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from jaula import __version__, metrics
from jaula.engine.oci_spec import host_facts
from jaula.engine.threads import in_own_thread
from jaula.errors import JaulaError
from jaula.features.metrics import exposition
from jaula.features.metrics.collect import Collector, Slices, targets, without_collector
from jaula.features.metrics.container_metrics import (
    CONTAINER_METRICS,
    COUNTER,
    NETWORK_METRICS,
    Metric,
    NetworkMetric,
)
from jaula.features.metrics.engine_table import ENGINE_METRICS, EngineFacts, ProcessFacts
from jaula.features.metrics.exposition import Family
from jaula.features.metrics.isolation_metrics import (
    IsolationRows,
    Refusals,
    RelaxationCache,
    container_metrics,
    refusal_layers,
)
from jaula.features.metrics.pod_usage import PodStats
from jaula.state.container_records import HealthStatus, Status
from jaula.tasks import awaited_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaula.engine.model.services import Services
    from jaula.features.metrics.collect import Sample, Target
    from jaula.features.metrics.engine_table import EngineMetric

MAX_AGE = 1.0  # seconds that a page is kept
_LAG_INTERVAL = 1.0  # seconds between two measurements of the event loop
_LAG_PERIOD = 120.0  # seconds after the last scrape in which the loop is measured
_EGRESS_INTERVAL = 10.0  # seconds between two reads of the firewall's counters
_GZIP_LEVEL = 1
_STATES = {
    Status.RUNNING: "running",
    Status.RESTARTING: "running",
    Status.PAUSED: "paused",
}
"""Docker's states of containers; all others are ``stopped``."""

_log = logging.getLogger("jaula.metrics")


class Metrics:
    """Collects and writes the pages."""

    def __init__(self, services: Services, build_steps: Callable[[], int]) -> None:
        """``build_steps`` returns the number of steps in the build cache."""
        self._services = services
        self._build_steps = build_steps
        self._collector = Collector(PodStats(services), str(services.config.paths.root))
        self._relaxations = RelaxationCache()
        self._pages: dict[tuple[str, bool], bytes] = {}
        self._collection: _Collection | None = None
        self._collected_at = float("-inf")  # time.monotonic()
        self._running: asyncio.Task[None] | None = None
        self._last_scrape = float("-inf")
        self._lag: asyncio.TimerHandle | None = None
        self._refused: dict[str, int] = {}
        self._refused_read = float("-inf")
        self.isolation: IsolationRows | None = None

    async def page(self, format: str, *, compressed: bool) -> bytes:
        """Return a page in one of the formats of :mod:`.exposition`, in gzip if ``compressed``."""
        asked = self._last_scrape = time.monotonic()
        self._measure_lag()
        key = (format, compressed)
        while True:
            page = self._pages.get(key)
            # On a busy machine a page may be old when it is written.
            if page is not None and (not self._is_old() or self._collected_at >= asked):
                return page
            if self._running is None:
                self._running = awaited_task(self._make(key))
            await asyncio.shield(self._running)

    def _is_old(self) -> bool:
        return time.monotonic() - self._collected_at > MAX_AGE

    def close(self) -> None:
        """Stop the timer."""
        if self._lag is not None:
            self._lag.cancel()

    async def _make(self, key: tuple[str, bool]) -> None:
        """Write the page of ``key``, from the last collection unless it is old."""
        try:
            if self._collection is None or self._is_old():
                started = time.monotonic()
                running = targets(self._services, self._services.config.metrics_labels)
                facts = self._facts(running)
                work = functools.partial(self._collect, running, facts)
                self._collection = await in_own_thread(work)
                self._pages, self._collected_at = {}, time.monotonic()
                metrics.SCRAPES.observe(self._collected_at - started)
                self._collector.start_walk(running)
            write = functools.partial(_write, self._collection, *key)
            self._pages[key] = await in_own_thread(write)
        finally:
            self._running = None

    # -- in the event loop ------------------------------------------------------------------------

    def _facts(self, running: Sequence[Target]) -> EngineFacts:
        """Return what only the event loop may read."""
        services = self._services
        store = list(services.container_store)
        states: Counter[str] = Counter(running=0, paused=0, stopped=0)
        for container in store:
            states[_STATES.get(container.record.status, "stopped")] += 1
        live = [target.container for target in running]
        health = [c.record.health for c in live]
        return EngineFacts(
            version=__version__,
            python=platform.python_version(),
            identity=services.identity,
            architecture=platform.machine(),
            storage_driver=services.snapshots.name,
            kernel=services.host.kernel,
            system=host_facts.operating_system(),
            cgroup_version=services.cgroups.version,
            cpus=len(services.host.online_cpus),
            memory=services.host.total_memory,
            states=states,
            unhealthy=sum(h is not None and h.status is HealthStatus.UNHEALTHY for h in health),
            subscribers=services.events.listeners,
            shims=sum(container.shim is not None for container in live),
            lost_shims=sum(container.shim is None for container in live),
            sandboxes=services.sandbox_pool.ready,
            sandbox_pool=services.config.sandbox_pool,
            objects={
                "container": len(store),
                "image": len(services.images.list()),
                "network": sum(1 for _ in services.network_store),
            },
            isolation=self.isolation,
            process=ProcessFacts(tasks=len(asyncio.all_tasks())),
        )

    def _measure_lag(self) -> None:
        """Measure the event loop once a second while there are scrapes."""
        if self._lag is not None:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + _LAG_INTERVAL

        def measure() -> None:
            self._lag = None
            metrics.LOOP_LAG.observe(max(0.0, loop.time() - due))
            if self._running is None and self._is_old():
                self._pages, self._collection = {}, None  # some megabytes
            if time.monotonic() - self._last_scrape < _LAG_PERIOD:
                self._measure_lag()

        self._lag = loop.call_at(due, measure)

    # -- in a thread ------------------------------------------------------------------------------

    def _collect(self, running: Sequence[Target], facts: EngineFacts) -> _Collection:
        records = [target.container.record for target in running]
        self._relaxations.update(records)
        kinds = [self._relaxations.of(record) for record in records]
        facts = self._with_files(facts)._replace(
            relaxations=dict(sorted(Counter(kind for row in kinds for kind in row).items())),
            unrelaxed=sum(not row for row in kinds),
            process=_process(facts.process),
        )
        samples = self._collector.collect(running, Slices())
        refused = self._refused_packets(running)
        refusals = {target.container.id: target.container.refusals.copy() for target in running}
        own = container_metrics(
            self._relaxations, Refusals(refusal_layers(), refusals, refused), facts.isolation
        )
        return _Collection(samples, own, facts)

    def _with_files(self, facts: EngineFacts) -> EngineFacts:
        """Return the facts with those of the engine's files and their file system."""
        services = self._services
        paths = services.config.paths
        disk = os.statvfs(paths.root)
        layers, volumes = services.layers.ids(), _entries(str(paths.volumes))
        return facts._replace(
            disk_size=disk.f_blocks * disk.f_frsize,
            disk_free=disk.f_bavail * disk.f_frsize,
            inodes=disk.f_files,
            inodes_free=disk.f_favail,
            objects={**facts.objects, "layer": len(layers), "volume": volumes},
            caches={"build": self._build_steps(), "seccomp": _entries(str(paths.seccomp_cache))},
            files={
                "audit-log": _directory_size(str(paths.audit_log)),
                "database": _size(str(paths.database)),
                "database-log": _size(f"{paths.database}-wal"),
            },
        )

    def _refused_packets(self, running: Sequence[Target]) -> dict[str, int]:
        """Return the packets that egress lists have refused, read every ten seconds."""
        if not any(t.container.record.host_config.egress is not None for t in running):
            return {}
        if time.monotonic() - self._refused_read > _EGRESS_INTERVAL:
            try:
                self._refused = self._services.network_manager.refused_packets()
            except JaulaError as error:
                _log.warning("refused packets are not counted: %s", error)
            self._refused_read = time.monotonic()
        return self._refused


class _Collection(NamedTuple):
    """The data of a page in any format."""

    samples: Sequence[Sample]
    own: Sequence[Metric]
    facts: EngineFacts


def _write(collection: _Collection, format: str, compressed: bool) -> bytes:
    """Return a page."""
    slices = Slices()
    parts = []
    with without_collector():
        for family in _families(*collection):
            parts.append(exposition.encode(family, format))
            slices.step()
    parts.append(exposition.end(format))
    page = "".join(parts).encode()
    if not compressed:
        return page
    from isal import igzip

    return igzip.compress(page, _GZIP_LEVEL)


def _families(
    samples: Sequence[Sample], own: Sequence[Metric], facts: EngineFacts
) -> Iterator[Family]:
    for metric in (*CONTAINER_METRICS, *own):
        if not metric.costly:
            yield Family(metric.name, metric.help, metric.type, _container_lines(metric, samples))
    for network in NETWORK_METRICS:
        yield Family(network.name, network.help, COUNTER, _network_lines(network, samples))
    for each in ENGINE_METRICS:
        yield Family(each.name, each.help, each.type, _engine_lines(each, facts))
    for instrument in metrics.INSTRUMENTS:
        lines = _instrument_lines(instrument)
        yield Family(instrument.name, instrument.help, instrument.type, lines)


def _container_lines(metric: Metric, samples: Sequence[Sample]) -> list[str]:
    """Return the lines of a metric. This is the inner loop of a page with 500 containers."""
    name, values, divisor, names = metric.name, metric.values, metric.divisor, metric.labels
    ends: dict[tuple[str, ...], str] = {(): "} "}  # of labels: few are different
    lines = []
    for usage, common, _ in samples:
        start = f"{name}{common[:-1]}"
        for own, value in values(usage):
            end = ends.get(own)
            if end is None:
                pairs = exposition.labels(dict(zip(names, own, strict=True)))
                end = ends[own] = f",{pairs[1:]} "
            lines.append(f"{start}{end}{value if divisor == 1 else value / divisor}\n")
    return lines


def _network_lines(network: NetworkMetric, samples: Sequence[Sample]) -> list[str]:
    name, counter = network.name, network.counter
    ends: dict[str, str] = {}
    lines = []
    for _, common, networks in samples:
        for interface, counters in networks.items():
            end = ends.get(interface)
            if end is None:
                end = ends[interface] = f",{exposition.labels({'interface': interface})[1:]} "
            lines.append(f"{name}{common[:-1]}{end}{counters[counter]}\n")
    return lines


def _engine_lines(metric: EngineMetric, facts: EngineFacts) -> Iterator[str]:
    for values, value in metric.values(facts):
        own = exposition.labels(dict(zip(metric.labels, values, strict=True)))
        yield f"{metric.name}{own} {exposition.number(value)}\n"


def _instrument_lines(instrument: metrics.Counter | metrics.Histogram) -> Iterator[str]:
    name = instrument.name
    if isinstance(instrument, metrics.Counter):
        for values, value in instrument.values().items():
            own = exposition.labels(dict(zip(instrument.labels, values, strict=True)))
            yield f"{name}{own} {exposition.number(value)}\n"
        return
    for values, observed in instrument.values().items():
        own = exposition.labels(dict(zip(instrument.labels, values, strict=True)))
        yield from exposition.histogram_lines(name, own, instrument.buckets, observed)


def _process(facts: ProcessFacts) -> ProcessFacts:
    """Return the facts with those of this process (proc(5), ``/proc/self/stat``)."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    started = time.time() - uptime + int(fields[19]) / ticks
    return facts._replace(
        cpu=(int(fields[11]) + int(fields[12])) / ticks,
        resident=int(fields[21]) * resource.getpagesize(),
        virtual=int(fields[20]),
        descriptors=_entries("/proc/self/fd"),
        descriptors_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        started=round(started, 2),
        threads=threading.active_count(),
    )


def _entries(directory: str) -> int:
    """Return the number of entries of a directory; 0 if it does not exist."""
    try:
        return len(os.listdir(directory))
    except FileNotFoundError:
        return 0


def _size(path: str) -> int:
    """Return the bytes that a file takes; 0 if it does not exist."""
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def _directory_size(path: str) -> int:
    """Return the bytes that the files of a directory take; 0 if it does not exist."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                total += _size(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    total += _directory_size(entry.path)
    except FileNotFoundError:
        return total  # it has just been removed
    return total


def names() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return the type, the own labels and the help text of every name."""
    own = container_metrics(RelaxationCache(), Refusals((), {}, {}), None)
    described = {
        metric.name: (metric.type, metric.labels, metric.help)
        for metric in (*CONTAINER_METRICS, *own)
        if not metric.costly
    }
    described |= {n.name: (COUNTER, ("interface",), n.help) for n in NETWORK_METRICS}
    described |= {m.name: (m.type, m.labels, m.help) for m in ENGINE_METRICS}
    for instrument in metrics.INSTRUMENTS:
        described[instrument.name] = (instrument.type, instrument.labels, instrument.help)
    return described
