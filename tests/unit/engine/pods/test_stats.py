"""CPU rates, sums of cgroups, and the writable layer as samples."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.cgroups.cgroup_driver import CpuStats, MemoryStats, PidsStats, Pressure, Stats
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.container import Container
from jaula.errors import NotFound
from jaula.features.metrics.pod_usage import (
    CgroupUsage,
    CpuSample,
    LayerSample,
    PodStats,
    is_current,
    next_sample,
    total,
)
from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import ContainerRecord, Status
from jaula.storage.drivers.storage_driver import SnapshotUsage

SECOND = 1_000_000_000  # nanoseconds


def test_the_rate_is_computed_between_samples_of_a_second_or_more() -> None:
    first = next_sample(None, 5 * SECOND, 100 * SECOND)
    assert first == CpuSample(5 * SECOND, 100 * SECOND, None)
    assert next_sample(first, 6 * SECOND, 100 * SECOND + SECOND // 2) == first
    second = next_sample(first, 6 * SECOND, 104 * SECOND)
    assert second.rate == SECOND // 4
    assert next_sample(second, 6 * SECOND, 104 * SECOND) == second


@pytest.mark.parametrize(("usage", "moment"), [(4 * SECOND, 110 * SECOND), (6 * SECOND, SECOND)])
def test_less_time_or_an_earlier_clock_starts_again(usage: int, moment: int) -> None:
    last = CpuSample(5 * SECOND, 100 * SECOND, 7)
    assert next_sample(last, usage, moment) == CpuSample(usage, moment, None)


def used(amount: int) -> CgroupUsage:
    stats = Stats(
        cpu=CpuStats(usage=amount, pressure=Pressure()),
        memory=MemoryStats(
            usage=amount, limit=9, swap=amount, inactive_file=1, details={"anon": amount}
        ),
        pids=PidsStats(current=amount, limit=9),
    )
    return CgroupUsage(stats, amount, (amount,))


def test_a_pod_without_a_cgroup_uses_what_its_containers_use() -> None:
    summed = total([used(2), None, used(3)])
    assert summed is not None
    assert (summed.moment, summed.pids) == (3, (2, 3))
    assert summed.stats.cpu == CpuStats(usage=5)
    assert summed.stats.memory == MemoryStats(usage=5, swap=5, inactive_file=2, details={"anon": 5})
    assert summed.stats.pids == PidsStats(current=5)
    assert total([None]) is total([]) is None


class Snapshots:
    """Snapshots whose walk takes this CPU time."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds, self.walks, self.present = seconds, 0, True

    def usage(self, id: str) -> SnapshotUsage:
        if not self.present:
            raise NotFound(f"snapshot {id} does not exist")
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        self.walks += 1
        return SnapshotUsage(self.walks, 1)


def layers(snapshots: Snapshots) -> tuple[PodStats, Container]:
    services: Any = SimpleNamespace(snapshots=snapshots)
    container = Container(ContainerRecord("1" * 64, "web", 1, ContainerCreate(), "sha256:00"))
    return PodStats(services), container


def test_a_layer_that_takes_long_is_not_walked_at_each_call() -> None:
    stats, container = layers(Snapshots(seconds=0.2))
    first = stats.layer(container)
    assert first is not None and first.usage.size == 1
    assert stats.layer(container) == first


@pytest.mark.parametrize(("after", "current"), [(0, True), (999, True), (1000, False), (-1, False)])
def test_the_pause_is_ten_times_the_cost_of_a_walk(after: int, current: bool) -> None:
    sample = LayerSample(SnapshotUsage(1, 1), 5000, 100)
    assert is_current(sample, 5000 + after) is current


def test_a_layer_that_is_removed_has_no_usage() -> None:
    snapshots = Snapshots()
    snapshots.present = False
    stats, container = layers(snapshots)
    assert stats.layer(container) is None


def test_a_cgroup_without_processes_has_no_usage() -> None:
    """On v1 its removed files count zero, which would be a counter that decreases."""
    pids: list[tuple[int, ...]] = [(7,), ()]

    class Cgroup:
        def __enter__(self) -> Cgroup:
            return self

        def __exit__(self, *_: object) -> None: ...

        def stats(self, *, detailed: bool) -> Stats:
            return Stats()

        def pids(self) -> tuple[int, ...]:
            return pids.pop(0)

    cgroups = SimpleNamespace(version=1, open=lambda path: Cgroup())
    services: Any = SimpleNamespace(
        cgroups=cgroups, config=SimpleNamespace(cgroup_parent="parent", systemd_cgroups=False)
    )
    body = ContainerCreate()
    record = ContainerRecord(
        "1" * 64, "web", 1, body, "", status=Status.RUNNING, resolved_request=resolve(body)
    )
    container = Container(record)
    stats = PodStats(services)
    found = stats.cgroup(container)
    assert found is not None and found.pids == (7,)
    assert stats.cgroup(container) is None
    container.change(status=Status.EXITED)
    assert stats.cgroup(container) is None
