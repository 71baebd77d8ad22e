"""Counters and histograms: series, buckets, threads, outcomes of actions."""

from __future__ import annotations

import threading

import pytest

from jaula import metrics
from jaula.metrics import Counter, Gauge, Histogram


def test_a_counter_without_labels_begins_at_zero() -> None:
    counter = Counter("a_total", "A.")
    assert counter.values() == {(): 0}
    counter.add()
    counter.add(by=2.5)
    assert counter.values() == {(): 3.5}


def test_known_series_exist_before_the_first_event() -> None:
    counter = Counter("a_total", "A.", ("kind",), known=(("x",), ("y",)))
    counter.add("z")
    assert counter.values() == {("x",): 0, ("y",): 0, ("z",): 1}


def test_an_observation_is_in_the_first_bucket_that_is_not_smaller() -> None:
    histogram = Histogram("a_seconds", "A.", buckets=(0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(seconds)
    assert histogram.values()[()].counts == (2, 2, 1)
    assert histogram.values()[()].sum == pytest.approx(8.65)


def test_no_event_is_lost_between_threads() -> None:
    counter, histogram = Counter("a_total", "A.", ("kind",)), Histogram("a_seconds", "A.")

    def work() -> None:
        for _ in range(20_000):
            counter.add("x")
            histogram.observe(0.2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.values() == {("x",): 80_000}
    assert sum(histogram.values()[()].counts) == 80_000


def test_a_copy_of_the_values_does_not_change() -> None:
    counter = Counter("a_total", "A.")
    before = counter.values()
    counter.add()
    assert before == {(): 0}


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "done"), (304, "done"), (403, "refused"), (404, "failed")]
)
def test_the_outcome_of_an_action_is_that_of_its_status(status: int, outcome: str) -> None:
    before = metrics.ACTION_RESULTS.values().get(("test action", outcome), 0)
    refused = metrics.REFUSALS.values()["policy",]
    metrics.observe_action("test action", 0.1, status)
    assert metrics.ACTION_RESULTS.values()["test action", outcome] == before + 1
    assert metrics.REFUSALS.values()["policy",] == refused + (outcome == "refused")


def test_the_names_of_dockerd_count_what_was_done() -> None:
    def starts() -> int:
        return sum(metrics.CONTAINER_ACTIONS.values()["start",].counts)

    before = starts()
    metrics.observe_action("container start", 0.1, 204)
    metrics.observe_action("container start", 0.1, 404)
    assert starts() == before + 1


def test_every_instrument_has_its_own_name_and_a_sentence() -> None:
    names = [instrument.name for instrument in metrics.INSTRUMENTS]
    assert len(names) == len(set(names)) > 20
    for instrument in metrics.INSTRUMENTS:
        assert instrument.help.endswith("."), instrument.name
        if isinstance(instrument, Gauge):
            assert not instrument.name.endswith(("_total", "_seconds")), instrument.name
        elif isinstance(instrument, Counter):
            assert instrument.name.endswith("_total"), instrument.name
        else:
            assert instrument.name.endswith("_seconds"), instrument.name
            assert list(instrument.buckets) == sorted(set(instrument.buckets))
