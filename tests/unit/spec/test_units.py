"""Sizes, durations and numbers are read and written as in Docker and Go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.spec import units


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
    assert units.nano_cpus(text) == number


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0000000001", "1e9", "."])
def test_an_invalid_number_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.nano_cpus(text)


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
    ("text", "bytes_"), [("10m", 10**7), ("4.35g", 4_350_000_000), ("1kib", 1000), ("7b", 7)]
)
def test_sizes_count_in_another_base_on_request(text: str, bytes_: int) -> None:
    assert units.size(text, base=1000) == bytes_


def test_the_largest_size_has_63_bits() -> None:
    assert units.size(str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(ValueError, match="invalid size"):
        units.size(str(2**63))


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    for parse in (units.size, units.seconds, units.integer, units.nano_cpus, units.unix_time):
        try:
            parse(text)
        except ValueError:
            pass


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.3, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (600, "10 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (3 * 365 * 86400, "3 years"),
        (-5, "Less than a second"),
    ],
)
def test_durations_are_in_dockers_words(seconds: float, words: str) -> None:
    assert units.human_duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (125, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 20, "2 weeks"),
        (86400 * 120, "4 months"),
        (86400 * 900, "2 years"),
    ],
)
def test_ages_are_words(seconds: float, words: str) -> None:
    assert units.human_duration(seconds) == words


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (300_000_000, "300ms"),
        (1_500_000_000, "1.5s"),
        (30_000_000_000, "30s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (-2_000_000_000, "-2s"),
    ],
)
def test_durations_are_printed_as_go_prints_them(nanoseconds: int, text: str) -> None:
    assert units.go_duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2024-02-29T12:00:00Z", 1709208000.0),
        ("2026-11-24T17:16:21.5+01:00", 1795536981.5),
        ("0001-01-01T00:00:00Z", 0.0),
        ("2000-03-01T00:00:00-02:30", 951877800.0),
        ("2024-02-29T12:00:00.123456789Z", 1709208000.123456),
        ("0001-01-01T00:00:00+14:00", 0.0),
    ],
)
def test_rfc_3339_times_are_parsed(text: str, moment: float) -> None:
    assert units.unix_time(text) == moment


@pytest.mark.parametrize("text", ["", "x", "2024-13-01", "2024-01-01T25:00:00Z", "T", "\0", "-1"])
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.unix_time(text)
