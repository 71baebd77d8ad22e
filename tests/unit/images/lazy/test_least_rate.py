"""The least rate of a background fetch, and which errors are an outage."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest, JaulaError, Unavailable, Unsupported
from jaula.features.lazy.lazy_server import LeastRate, TooSlow, is_temporary
from jaula.images.registry.cancellation import Cancelled
from jaula.images.registry.registry_errors import ConnectionLost, RegistryError, Unreachable


def rate() -> LeastRate:
    return LeastRate(0.0, rate=100, window=10.0, patience=60.0)


def test_a_fast_download_never_misses_the_rate() -> None:
    measured = rate()
    for second in range(1000):
        measured.receive(100, float(second))
        assert not measured.is_missed(float(second))


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_slow_one_misses_it_when_the_patience_is_over(count: int) -> None:
    measured = rate()
    missed = []
    for second in range(100):
        measured.receive(count, float(second))
        if measured.is_missed(float(second)):
            missed.append(second)
    assert missed
    assert min(missed) == 61


def test_one_fast_window_begins_the_patience_again() -> None:
    measured = rate()
    for second in range(55):
        measured.receive(1, float(second))
    measured.receive(1000, 55.0)
    assert not measured.is_missed(115.0)
    assert measured.is_missed(116.0)


def test_bytes_of_several_windows_are_not_added_up() -> None:
    """A burst below the least amount of a window, again and again."""
    measured = rate()
    for window in range(20):
        measured.receive(999, window * 10.0)
        measured.receive(0, window * 10.0 + 9.9)
    assert measured.is_missed(200.0)


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (ConnectionLost("lost"), True),
        (Unreachable("down"), True),
        (Unavailable("no server"), True),
        (RegistryError("", "busy", 503), True),
        (RegistryError("", "many", 429), True),
        (RegistryError("", "gone", 404), False),
        (RegistryError("", "denied", 401), False),
        (Unsupported("no ranges"), False),
        (InvalidRequest("other bytes"), False),
        (TooSlow(), False),
        (Cancelled(), False),
    ],
)
def test_only_an_outage_is_tried_again(error: JaulaError, temporary: bool) -> None:
    assert is_temporary(error) is temporary
