"""Sizes, durations and times are read and written as in Docker."""

from __future__ import annotations

import pytest

from jaula.cli import units
from jaula.cli.errors import UsageError
from jaula.cli.output import times


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0),
        ("100", 100),
        ("64mb", 64 << 20),
        ("64m", 64 << 20),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("2 k", 2048),
        ("7b", 7),
        ("1t", 1 << 40),
        ("-1", -1),
    ],
)
def test_sizes_count_in_1024(text: str, bytes_: int) -> None:
    assert units.size(text) == bytes_


@pytest.mark.parametrize(
    "text", ["", "m", "xx", "-5m", "1.2.3", "64mm", "1e3", "٣m", "9" * 40, "nan", "inf", "0x10"]
)
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        units.size(text)


@pytest.mark.parametrize(
    ("text", "number"), [("0.5", 500_000_000), ("2", 2 * 10**9), ("1.000000001", 1_000_000_001)]
)
def test_cpus_are_billionths(text: str, number: int) -> None:
    assert units.nano(text) == number


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0000000001", "1e9", "."])
def test_an_invalid_number_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.nano(text)


@pytest.mark.parametrize(
    ("text", "nano"),
    [("1h30m", 5400 * 10**9), ("1.5s", 1_500_000_000), ("300ms", 300_000_000), ("0", 0),
     ("-2m", -120 * 10**9), ("1us", 1000)],
)  # fmt: skip
def test_durations_are_gos(text: str, nano: int) -> None:
    assert units.nanoseconds(text) == nano


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1.2.3s", "1h2"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        units.nanoseconds(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0B"), (999, "999B"), (4_270_000, "4.27MB"), (2_026_000, "2.026MB"), (1000, "1kB"),
     (5 * 10**9, "5GB")],
)  # fmt: skip
def test_sizes_are_formatted_in_1000(number: int, text: str) -> None:
    assert units.human_size(number) == text


def test_memory_is_formatted_in_1024() -> None:
    assert units.bytes_size(520 * 1024) == "520KiB"
    assert units.bytes_size(64 << 20) == "64MiB"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2024-02-29T12:00:00Z", 1709208000.0),
        ("2026-11-24T17:16:21.5+01:00", 1795536981.5),
        ("0001-01-01T00:00:00Z", 0.0),
        ("2000-03-01T00:00:00-02:30", 951877800.0),
    ],
)
def test_rfc_3339_times_are_parsed(text: str, moment: float) -> None:
    assert times.epoch(text) == moment


def test_a_time_is_unix_seconds_or_a_duration() -> None:
    assert times.timestamp("") == ""
    assert times.timestamp("1700000000.5") == "1700000000.5"
    assert times.timestamp("2024-02-29T12:00:00Z") == "1709208000"
    assert float(times.timestamp("1h")) < float(times.timestamp("1s"))
    for text in ("yesterday", "2024-13-45T99:00:00Z", "--", "1x"):
        with pytest.raises(UsageError, match="invalid time"):
            times.timestamp(text)
