"""Metrics of the engine itself and of its process. Pure.

What is counted since the start is in :mod:`jaula.metrics`; this table has what can be read at any
moment. Names with ``engine_daemon_`` are dockerd's, names with ``process_`` those of Prometheus'
client libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from jaula.features.metrics.container_metrics import COUNTER, GAUGE

if TYPE_CHECKING:
    from jaula.features.metrics.isolation_metrics import IsolationRows

Value = tuple[tuple[str, ...], float]
"""The values of a metric's labels, and the value."""


class ProcessFacts(NamedTuple):
    """The engine's process: seconds, bytes, counts."""

    cpu: float = 0.0
    resident: int = 0
    virtual: int = 0
    descriptors: int = 0
    descriptors_limit: float = 0
    started: float = 0.0
    threads: int = 0
    tasks: int = 0


class EngineFacts(NamedTuple):
    """The engine at one moment. ``states`` are Docker's three; sizes are in bytes."""

    version: str = ""
    python: str = ""
    identity: str = ""
    architecture: str = ""
    storage_driver: str = ""
    kernel: str = ""
    system: str = ""
    cgroup_version: int = 2
    cpus: int = 0
    memory: int = 0
    states: Mapping[str, int] = {}
    unhealthy: int = 0
    subscribers: int = 0
    relaxations: Mapping[str, int] = {}
    unrelaxed: int = 0
    shims: int = 0
    lost_shims: int = 0
    sandboxes: int = 0
    sandbox_pool: int = 0
    objects: Mapping[str, int] = {}
    caches: Mapping[str, int] = {}
    files: Mapping[str, int] = {}
    disk_size: int = 0
    disk_free: int = 0
    inodes: int = 0
    inodes_free: int = 0
    isolation: IsolationRows | None = None
    process: ProcessFacts = ProcessFacts()


class EngineMetric(NamedTuple):
    """A metric of the engine."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: Callable[[EngineFacts], Iterable[Value]]
    type: str = GAUGE


def _one(
    name: str, help: str, value: Callable[[EngineFacts], float], type: str = GAUGE
) -> EngineMetric:
    return EngineMetric(name, help, (), lambda facts: (((), value(facts)),), type)


def _by(
    name: str, help: str, label: str, values: Callable[[EngineFacts], Mapping[str, float]]
) -> EngineMetric:
    def rows(facts: EngineFacts) -> Iterator[Value]:
        for key, value in values(facts).items():
            yield (key,), value

    return EngineMetric(name, help, (label,), rows)


def _info(facts: EngineFacts) -> Iterable[Value]:
    labels = (
        *(facts.version, facts.identity, facts.architecture, facts.storage_driver),
        *(facts.kernel, facts.system, "linux"),
    )
    return ((labels, 1),)


def _build(facts: EngineFacts) -> Iterable[Value]:
    return (((facts.version, facts.python, str(facts.cgroup_version)), 1),)


def _isolation(facts: EngineFacts) -> Iterable[Value]:
    return facts.isolation.rows.items() if facts.isolation is not None else ()


def _verified(facts: EngineFacts) -> Iterable[Value]:
    return (((), facts.isolation.moment),) if facts.isolation is not None else ()


def _verify_duration(facts: EngineFacts) -> Iterable[Value]:
    return (((), facts.isolation.duration),) if facts.isolation is not None else ()


def _verify_failed(facts: EngineFacts) -> Iterable[Value]:
    return (((), int(facts.isolation.failed)),) if facts.isolation is not None else ()


ENGINE_METRICS: tuple[EngineMetric, ...] = (
    EngineMetric(
        "engine_daemon_engine_info",
        "The information related to the engine and the OS it is running on.",
        ("version", "daemon_id", "architecture", "graphdriver", "kernel", "os", "os_type"),
        _info,
    ),
    _one(
        "engine_daemon_engine_cpus_cpus",
        "The number of cpus that the host system of the engine has.",
        lambda facts: facts.cpus,
    ),
    _one(
        "engine_daemon_engine_memory_bytes",
        "The number of bytes of memory that the host system of the engine has.",
        lambda facts: facts.memory,
    ),
    _by(
        "engine_daemon_container_states_containers",
        "The count of containers in various states.",
        "state",
        lambda facts: facts.states,
    ),
    _one(
        "engine_daemon_events_subscribers_total",
        "The number of current subscribers to events.",
        lambda facts: facts.subscribers,
    ),
    EngineMetric(
        "jaula_build_info",
        "Version of the engine and of its interpreter, and of the host's cgroups.",
        ("version", "python", "cgroups"),
        _build,
    ),
    _one(
        "jaula_containers_unhealthy",
        "Running containers whose health check fails.",
        lambda facts: facts.unhealthy,
    ),
    _by(
        "jaula_relaxed_containers",
        "Running containers that have a relaxation, by its name in the policy.",
        "relaxation",
        lambda facts: facts.relaxations,
    ),
    _one(
        "jaula_unrelaxed_containers",
        "Running containers without a relaxation.",
        lambda facts: facts.unrelaxed,
    ),
    EngineMetric(
        "jaula_isolation_rows",
        "Rows of the last verification of all containers, by layer and verdict.",
        ("layer", "verdict"),
        _isolation,
    ),
    EngineMetric(
        "jaula_isolation_verified_timestamp_seconds",
        "Time of the last verification of all containers, in seconds since the epoch.",
        (),
        _verified,
    ),
    EngineMetric(
        "jaula_isolation_verification_duration_seconds",
        "Duration of that verification.",
        (),
        _verify_duration,
    ),
    EngineMetric(
        "jaula_isolation_verification_failed",
        "1 if the last verification could not be carried out.",
        (),
        _verify_failed,
    ),
    _one("jaula_shims", "Shims that the engine is connected to.", lambda facts: facts.shims),
    _one(
        "jaula_shims_lost",
        "Running containers whose shim the engine is not connected to.",
        lambda facts: facts.lost_shims,
    ),
    _one(
        "jaula_sandboxes_ready",
        "Sandboxes that are prepared for the next starts.",
        lambda facts: facts.sandboxes,
    ),
    _one(
        "jaula_sandbox_pool_size",
        "Sandboxes that the engine prepares at most.",
        lambda facts: facts.sandbox_pool,
    ),
    _by(
        "jaula_objects",
        "Objects of the engine by kind.",
        "kind",
        lambda facts: facts.objects,
    ),
    _by(
        "jaula_cache_entries",
        "Entries of the engine's caches.",
        "cache",
        lambda facts: facts.caches,
    ),
    _by(
        "jaula_state_size_bytes",
        "Size of the engine's own files.",
        "file",
        lambda facts: facts.files,
    ),
    _one(
        "jaula_root_filesystem_size_bytes",
        "Size of the file system of the engine's directory.",
        lambda facts: facts.disk_size,
    ),
    _one(
        "jaula_root_filesystem_avail_bytes",
        "Free space of the file system of the engine's directory.",
        lambda facts: facts.disk_free,
    ),
    _one(
        "jaula_root_filesystem_inodes",
        "Inodes of the file system of the engine's directory.",
        lambda facts: facts.inodes,
    ),
    _one(
        "jaula_root_filesystem_inodes_free",
        "Free inodes of the file system of the engine's directory.",
        lambda facts: facts.inodes_free,
    ),
    _one("jaula_event_loop_tasks", "Tasks of the event loop.", lambda facts: facts.process.tasks),
    _one("jaula_threads", "Threads of the engine's process.", lambda facts: facts.process.threads),
    _one(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        lambda facts: facts.process.cpu,
        COUNTER,
    ),
    _one(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        lambda facts: facts.process.resident,
    ),
    _one(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        lambda facts: facts.process.virtual,
    ),
    _one(
        "process_open_fds",
        "Number of open file descriptors.",
        lambda facts: facts.process.descriptors,
    ),
    _one(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        lambda facts: facts.process.descriptors_limit,
    ),
    _one(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        lambda facts: facts.process.started,
    ),
)
