"""Counters and histograms of the engine: what happened since its start.

Values that can be read at any moment (containers, memory, caches) are not counted here; a scrape
reads them (:mod:`jaula.features.metrics`). Every instrument is a constant of this module, so that
any package can count without a reference to a registry. An observation takes less than a
microsecond.

Labels have values of the program only: names of actions, templates of routes, statuses. No client
can add a series, so the number of series is bounded.

Source: moby ``daemon/metrics.go`` and ``builder/dockerfile/metrics.go`` for the names that begin
with ``engine_daemon_`` and ``builder_``.
"""

from __future__ import annotations

from _thread import allocate_lock
from bisect import bisect_left
from typing import NamedTuple

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Docker's buckets."""
LONG_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Buckets of pulls and builds."""
SHORT_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Buckets of a turn of the event loop, and of a sync of the database."""

Labels = tuple[str, ...]


class HistogramValue(NamedTuple):
    """The observations of one series; ``counts`` is by bucket, the last one without a limit."""

    counts: tuple[int, ...]
    sum: float


class Counter:
    """A number that only increases, by the values of its labels."""

    type = "counter"
    __slots__ = ("_lock", "_values", "help", "labels", "name")

    def __init__(
        self, name: str, help: str, labels: Labels = (), *, known: tuple[Labels, ...] = ()
    ) -> None:
        """Name a counter. The series of ``known`` exist from the start, with the value 0."""
        self.name = name
        self.help = help
        self.labels = labels
        self._values: dict[Labels, float] = dict.fromkeys(known or (() if labels else ((),)), 0)
        self._lock = allocate_lock()

    def add(self, *labels: str, by: float = 1) -> None:
        """Count. Safe in any thread."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + by

    def values(self) -> dict[Labels, float]:
        """Return the value of each series."""
        with self._lock:
            return dict(self._values)


class Gauge(Counter):
    """A number that is set, by the values of its labels."""

    type = "gauge"
    __slots__ = ()

    def set(self, value: float, *labels: str) -> None:
        """Set a series. Safe in any thread."""
        with self._lock:
            self._values[labels] = value


class Histogram:
    """Durations in seconds, by the values of its labels."""

    type = "histogram"
    __slots__ = ("_counts", "_lock", "_sums", "buckets", "help", "labels", "name")

    def __init__(
        self,
        name: str,
        help: str,
        labels: Labels = (),
        *,
        buckets: tuple[float, ...] = SECONDS,
        known: tuple[Labels, ...] = (),
    ) -> None:
        """Name a histogram. The series of ``known`` exist from the start, without observations."""
        self.name = name
        self.help = help
        self.labels = labels
        self.buckets = buckets
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        self._lock = allocate_lock()
        for values in known or (() if labels else ((),)):
            self._add(values)

    def _add(self, labels: Labels) -> list[int]:
        counts = self._counts[labels] = [0] * (len(self.buckets) + 1)
        self._sums[labels] = 0.0
        return counts

    def observe(self, seconds: float, *labels: str) -> None:
        """Count a duration. Safe in any thread."""
        with self._lock:
            counts = self._counts.get(labels) or self._add(labels)
            counts[bisect_left(self.buckets, seconds)] += 1
            self._sums[labels] += seconds

    def values(self) -> dict[Labels, HistogramValue]:
        """Return the observations of each series."""
        with self._lock:
            return {
                labels: HistogramValue(tuple(counts), self._sums[labels])
                for labels, counts in self._counts.items()
            }


_CONTAINER_ACTIONS = {
    "container create": "create",
    "container start": "start",
    "container commit": "commit",
    "container remove": "delete",
}
_NETWORK_ACTIONS = {"network connect": "connect", "network disconnect": "disconnect"}

REFUSAL_LAYERS = {
    "audit": ("apparmor", "selinux", "landlock", "seccomp"),
    "ebpf": ("seccomp", "landlock"),
}
"""The layers whose refusals each source may count."""

ACTIONS = Histogram(
    "jaula_action_duration_seconds",
    "Duration of requests that change something, by the action of the audit log.",
    ("action",),
    buckets=LONG_SECONDS,
)
ACTION_RESULTS = Counter(
    "jaula_actions_total",
    "Requests that change something, by action and outcome: done, refused or failed.",
    ("action", "outcome"),
)
CONTAINER_ACTIONS = Histogram(
    "engine_daemon_container_actions_seconds",
    "The number of seconds it takes to process each container action.",
    ("action",),
    known=tuple((action,) for action in (*_CONTAINER_ACTIONS.values(), "changes")),
)
NETWORK_ACTIONS = Histogram(
    "engine_daemon_network_actions_seconds",
    "The number of seconds it takes to process each network action.",
    ("action",),
    known=tuple((action,) for action in _NETWORK_ACTIONS.values()),
)
EVENTS = Counter("engine_daemon_events_total", "The number of events logged.")
HEALTH_CHECKS = Counter("engine_daemon_health_checks_total", "The total number of health checks.")
HEALTH_CHECKS_FAILED = Counter(
    "engine_daemon_health_checks_failed_total", "The total number of failed health checks."
)
BUILDS = Counter("builder_builds_triggered_total", "Number of triggered image builds.")
BUILDS_FAILED = Counter(
    "builder_builds_failed_total",
    "Number of failed image builds.",
    ("reason",),
    known=(("build_canceled",), ("error_processing_commands_error",)),
)
PULLS = Histogram(
    "jaula_image_pull_duration_seconds",
    "Duration of pulls that have stored an image.",
    buckets=LONG_SECONDS,
)
BUILD_DURATIONS = Histogram(
    "jaula_image_build_duration_seconds",
    "Duration of builds that have made an image.",
    buckets=LONG_SECONDS,
)
START_PHASES = Histogram(
    "jaula_container_start_phase_duration_seconds",
    "Duration of the phases of a start: sandbox, spec, runtime and record.",
    ("phase",),
    buckets=SHORT_SECONDS,
    known=(("sandbox",), ("spec",), ("runtime",), ("record",)),
)
ENGINE_STARTS = Counter(
    "jaula_engine_start_phase_seconds_total",
    "Time of the start of this engine, by phase: load, restore and listen.",
    ("phase",),
)
REQUESTS = Counter(
    "jaula_api_requests_total",
    "Requests of the API that were answered, by method, route and status.",
    ("method", "route", "code"),
)
REQUEST_DURATIONS = Histogram(
    "jaula_api_request_duration_seconds",
    "Duration of requests of the API until the answer is known; a stream ends later.",
    ("route",),
)
REFUSALS = Counter(
    "jaula_refusals_total",
    "Requests and operations that a layer has refused.",
    ("layer",),
    known=(("policy",),),
)
REFUSAL_SOURCES = Gauge(
    "jaula_refusals_source",
    "1 if the refusals of a layer are counted from this source on this host, 0 if not.",
    ("layer", "source"),
    known=tuple((layer, source) for source, layers in REFUSAL_LAYERS.items() for layer in layers),
)
REFUSALS_LOST = Counter(
    "jaula_refusals_lost_total",
    "Audit records and refusals that were dropped before they were counted, by source.",
    ("source",),
    known=tuple((source,) for source in REFUSAL_LAYERS),
)
ISOLATION_CHANGES = Counter(
    "jaula_isolation_changes_total",
    "Rows of verify --watch that have changed, by their new verdict.",
    ("verdict",),
)
DRIFTS = Counter("jaula_drifts_total", "Deviations from a record that record --drift has found.")
OUT_OF_MEMORY = Counter(
    "jaula_container_oom_events_total",
    "Notifications of exhausted memory, of all containers since the engine's start.",
)
SYNCS = Histogram(
    "jaula_group_commit_sync_duration_seconds",
    "Duration of the syncs of the database that answers wait for.",
    buckets=SHORT_SECONDS,
)
SYNCED_CHANGES = Counter(
    "jaula_group_commit_changes_total", "Changes of the database that these syncs have stored."
)
LOOP_LAG = Histogram(
    "jaula_event_loop_lag_seconds",
    "Time from the request of a turn of the event loop to that turn.",
    buckets=SHORT_SECONDS,
)
SCRAPES = Histogram(
    "jaula_scrape_duration_seconds",
    "Duration of the collections for /metrics; a cached page has none.",
)

INSTRUMENTS: tuple[Counter | Histogram, ...] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, Counter | Histogram)
)
"""All instruments, in the order of this module."""


def observe_action(action: str, seconds: float, status: int) -> None:
    """Count a request that changes something, by its name and status in the audit log."""
    if status == 403:
        outcome = "refused"
        REFUSALS.add("policy")
    else:
        outcome = "done" if status < 400 else "failed"
    ACTION_RESULTS.add(action, outcome)
    ACTIONS.observe(seconds, action)
    if outcome != "done":
        return
    if (name := _CONTAINER_ACTIONS.get(action)) is not None:
        CONTAINER_ACTIONS.observe(seconds, name)
    elif (name := _NETWORK_ACTIONS.get(action)) is not None:
        NETWORK_ACTIONS.observe(seconds, name)
