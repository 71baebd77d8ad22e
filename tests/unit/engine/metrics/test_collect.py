"""The collector of cyclic garbage does not run during a scrape."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from jaula.features.metrics.collect import without_collector


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if enabled else gc.disable)()


class Cycle:
    def __init__(self) -> None:
        self.own = self


def test_no_cycle_is_collected_in_the_block_however_much_is_allocated() -> None:
    with without_collector():
        cycle = weakref.ref(Cycle())
        kept = [[] for _ in range(100_000)]  # type: ignore[var-annotated]
        assert cycle() is not None
    assert len(kept) == 100_000
    assert gc.isenabled()
    gc.collect()
    assert cycle() is None


def test_a_failure_turns_the_collector_on_again() -> None:
    with pytest.raises(OSError, match="no space"), without_collector():
        raise OSError("no space")
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with without_collector():
        pass
    assert not gc.isenabled()
