"""Metrics of isolation: relaxations and refusals of each container, rows of the last verification.

The engine does not verify itself: ``jaula verify`` reads the kernel in a process of its own
(:mod:`jaula.features.metrics.verification`), and its counts are kept here until the next run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jaula import metrics
from jaula.engine import relaxations
from jaula.features.metrics.container_metrics import COUNTER, GAUGE, Metric
from jaula.state.container_records import HealthStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaula.features.metrics.container_metrics import Value
    from jaula.features.metrics.pod_samples import ContainerSample
    from jaula.state.container_records import ContainerRecord


VERDICTS = ("holds", "relaxed", "fails", "unknown")


class IsolationRows(NamedTuple):
    """The last verification of all containers.

    ``rows`` has the number of rows by layer and verdict, ``containers`` that by name and verdict.
    ``moment`` is in seconds since the epoch, ``duration`` in seconds. ``failed`` says that the rows
    are those of an earlier run.
    """

    rows: Mapping[tuple[str, str], int]
    containers: Mapping[tuple[str, str], int]
    moment: float
    duration: float
    failed: bool = False


class RelaxationCache:
    """The relaxations of containers. They are computed again when the record is another one."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[ContainerRecord, tuple[str, ...]]] = {}

    def update(self, records: Sequence[ContainerRecord]) -> None:
        """Compute the relaxations of these records, and forget all others."""
        known: dict[str, tuple[ContainerRecord, tuple[str, ...]]] = {}
        for record in records:
            entry = self._known.get(record.id)
            if entry is None or entry[0] is not record:
                kinds = {str(privilege.kind) for privilege in relaxations.of_record(record)}
                entry = (record, tuple(sorted(kinds)))
            known[record.id] = entry
        self._known = known

    def of(self, record: ContainerRecord) -> tuple[str, ...]:
        """Return the kinds of relaxations of a container."""
        entry = self._known.get(record.id)
        return entry[1] if entry is not None else ()


class Refusals(NamedTuple):
    """The refusals of containers by id, and the packets that their egress lists have refused.

    A layer that is not in ``layers`` has no series: its refusals are not counted on this host.
    """

    layers: tuple[str, ...]
    containers: Mapping[str, Mapping[str, int]]
    packets: Mapping[str, int]


def refusal_layers() -> tuple[str, ...]:
    """Return the layers whose refusals are counted now."""
    sources = metrics.REFUSAL_SOURCES.values().items()
    return tuple(dict.fromkeys(layer for (layer, _), counted in sources if counted))


def container_metrics(
    cache: RelaxationCache, refused: Refusals, isolation: IsolationRows | None
) -> tuple[Metric, ...]:
    """Return the table of jaula's own metrics of containers."""

    def kinds(sample: ContainerSample) -> Iterable[Value]:
        return (((kind,), 1) for kind in cache.of(sample.record))

    def count(sample: ContainerSample) -> Iterable[Value]:
        return (((), len(cache.of(sample.record))),)

    def refusals(sample: ContainerSample) -> Iterable[Value]:
        stats = sample.cgroup.stats
        yield ("pids",), stats.pids.refused
        yield ("memory",), stats.memory.failures
        counts = refused.containers.get(sample.record.id, {})
        for layer in refused.layers:
            yield (layer,), counts.get(layer, 0)

    def packets(sample: ContainerSample) -> Iterable[Value]:
        if sample.record.host_config.egress is not None:
            yield (), refused.packets.get(sample.record.id, 0)

    def rows(sample: ContainerSample) -> Iterable[Value]:
        counts = isolation.containers if isolation is not None else {}
        for verdict in VERDICTS:
            if (number := counts.get((sample.record.name, verdict))) is not None:
                yield (verdict,), number

    def unhealthy(sample: ContainerSample) -> Iterable[Value]:
        if (health := sample.record.health) is not None:
            yield (), int(health.status is HealthStatus.UNHEALTHY)

    return (
        Metric(
            "jaula_container_relaxation",
            "1 for each relaxation of the container, by its name in the policy.",
            ("relaxation",),
            GAUGE,
            kinds,
        ),
        Metric(
            "jaula_container_relaxations",
            "Number of the relaxations of the container.",
            (),
            GAUGE,
            count,
        ),
        Metric(
            "jaula_container_refusals_total",
            "Operations that a limit or a layer has refused to the container, by layer.",
            ("layer",),
            COUNTER,
            refusals,
        ),
        Metric(
            "jaula_container_egress_refused_packets",
            "Packets to destinations that the egress list refuses, of destinations seen lately.",
            (),
            GAUGE,
            packets,
        ),
        Metric(
            "jaula_container_isolation_rows",
            "Rows of the last verification of the container, by verdict.",
            ("verdict",),
            GAUGE,
            rows,
        ),
        Metric(
            "jaula_container_restarts_total",
            "Restarts of the container by its policy.",
            (),
            COUNTER,
            lambda sample: (((), sample.record.restart_count),),
        ),
        Metric(
            "jaula_container_unhealthy",
            "1 if the health check of the container fails; none without a check.",
            (),
            GAUGE,
            unhealthy,
        ),
    )
