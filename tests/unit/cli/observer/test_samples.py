"""Counters become rates, and histories stay small."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.features.verify.observer.samples import (
    FIELDS,
    KEPT,
    Counters,
    rates,
    read_pressure,
    thin,
)

SECOND = 1_000_000_000  # nanoseconds


def counters(time: float, cpu: int = 0, throttled: int = 0, received: int = 0) -> Counters:
    return Counters(time, cpu, throttled, received, 0, 0, 0)


def test_a_busy_processor_is_hundred_percent() -> None:
    before, now = counters(10.0), counters(12.0, cpu=2 * SECOND, throttled=SECOND, received=4096)
    assert rates(before, now) == (100.0, 50.0, 2048.0, 0.0, 0.0, 0.0)


def test_a_counter_that_began_anew_is_no_negative_rate() -> None:
    assert rates(counters(1.0, cpu=5 * SECOND), counters(2.0, cpu=0))[0] == 0.0


def test_two_samples_at_one_moment_have_no_rate() -> None:
    assert rates(counters(1.0), counters(1.0, cpu=SECOND)) == (0.0,) * 6


def test_several_processors_throttle_no_more_than_all_of_the_time() -> None:
    assert rates(counters(0.0), counters(1.0, throttled=9 * SECOND))[1] == 100.0


def test_thinned_samples_keep_their_peak_and_the_last_time() -> None:
    rows = [(float(n), 99.0 if n == 3 else 1.0) for n in range(10)]
    thinned = thin(rows, 4)
    assert len(thinned) <= 4
    assert thinned[-1][0] == 9.0
    assert max(value for _, value in thinned) == 99.0


@pytest.mark.parametrize("points", [1, 2, 7, 899, 900, 5000])
def test_no_more_rows_than_points(points: int) -> None:
    rows = [(float(n), float(n)) for n in range(KEPT)]
    assert 0 < len(thin(rows, points)) <= min(points, KEPT)


def test_pressure_is_the_share_of_ten_seconds(tmp_path: Path) -> None:
    line = "some avg10=12.50 avg60=1.00 avg300=0.10 total=5\n"
    (tmp_path / "cpu.pressure").write_text(line)
    (tmp_path / "memory.pressure").write_text("no line of the kernel\n")
    assert read_pressure(str(tmp_path)) == (12.5, 0.0, -1.0)


def test_without_a_directory_nothing_is_counted() -> None:
    assert read_pressure("") == (-1.0, -1.0, -1.0)


def test_the_page_has_the_same_fields() -> None:
    source = Path(__file__).parents[4] / "src/jaula/features/web/static/observed.js"
    listed = source.read_text().partition("FIELDS = [")[2].partition("]")[0]
    assert tuple(each.strip(" '\n") for each in listed.split(",") if each.strip()) == FIELDS
