"""Times of the command line are read as in Docker."""

from __future__ import annotations

import time

import pytest

from jaula.cli.cli_errors import UsageError
from jaula.cli.output import times


def test_a_time_is_unix_seconds_or_a_duration() -> None:
    assert times.timestamp("") == ""
    assert times.timestamp("1700000000.5") == "1700000000.5"
    assert times.timestamp("2024-02-29T12:00:00Z") == "1709208000"
    assert float(times.timestamp("1h")) < float(times.timestamp("1s"))
    for text in ("yesterday", "2024-13-45T99:00:00Z", "--", "1x"):
        with pytest.raises(UsageError, match="invalid time"):
            times.timestamp(text)


def test_a_time_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert times.timestamp("2024-02-29T12:00:00") == "1709200800"
        assert times.timestamp("2024-02-29") == "1709157600"
    finally:
        monkeypatch.undo()
        time.tzset()
