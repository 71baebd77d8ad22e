"""Ranges of ids: one container's each, or of those that joined it, until the last has ended."""

from __future__ import annotations

import pytest

from jaula.engine.userns.id_ranges import IdRanges, SingleIdRange
from jaula.errors import InvalidRequest, Unavailable
from jaula.security import id_ranges
from jaula.security.id_ranges import IdRange
from jaula.spec.runtime import IDMapping


def test_a_borrowed_range_is_free_when_the_last_one_gives_it_back() -> None:
    ranges = IdRanges(1_000_000, 2 * 65536)
    first, second = ranges.take(), ranges.take()
    assert first != second
    ranges.borrow(first.start)
    ranges.release(first.start)
    with pytest.raises(Unavailable, match="all 2 ranges"):
        ranges.take()
    ranges.release(first.start)
    assert ranges.take() == first


def test_giving_back_twice_frees_nothing_of_others() -> None:
    ranges = IdRanges(0, 65536)
    ranges.release(0)
    assert ranges.take() == IdRange(0)
    with pytest.raises(Unavailable):
        ranges.take()


def test_what_runs_already_is_held_as_often_as_it_is_used() -> None:
    ranges = IdRanges(0, 65536)
    ranges.hold([0])
    ranges.hold([0])
    ranges.release(0)
    with pytest.raises(Unavailable):
        ranges.take()


def test_the_one_range_of_a_user_is_everyones() -> None:
    one = SingleIdRange(65536)
    one.borrow(0)
    one.release(0)
    assert one.take() == one.take() == IdRange(0)


@pytest.mark.parametrize("own", [1, 1000, 65534, 65535])
def test_a_kept_id_is_itself_and_every_other_one_is_of_the_range(own: int) -> None:
    rows = id_ranges.keep_id_mappings(IdRange(2_000_000), own)

    def outside(inside: int) -> int:
        (found,) = [r for r in rows if r.container_id <= inside < r.container_id + r.size]
        return found.host_id + inside - found.container_id

    assert outside(own) == own
    for other in {0, 1, own - 1, own + 1, 65535} - {own, 65536}:
        assert outside(other) == 2_000_000 + other
    assert sum(row.size for row in rows) == 65536
    assert IDMapping(container_id=own, host_id=own, size=1) in rows


@pytest.mark.parametrize("own", [0, -1, 65536, 2**32 - 2])
def test_an_id_that_cannot_be_kept_is_refused(own: int) -> None:
    with pytest.raises(InvalidRequest, match="keep-id"):
        id_ranges.keep_id_mappings(IdRange(0), own)
