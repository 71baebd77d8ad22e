"""Ranges of host ids: allocation, sharing by joined containers, release, and keep-id maps."""

from __future__ import annotations

import pytest

from jaula.engine.userns.id_ranges import (
    IdRange,
    IdRanges,
    SingleIdRange,
    allocate,
    keep_id_mappings,
    mappings,
)
from jaula.errors import InvalidRequest, Unavailable
from jaula.spec.runtime_spec import IDMapping


def test_a_shared_range_is_free_when_its_last_container_releases_it() -> None:
    ranges = IdRanges(1_000_000, 2 * 65536)
    first, second = ranges.take(), ranges.take()
    assert first != second
    ranges.share(first.start)
    ranges.release(first.start)
    with pytest.raises(Unavailable, match="all 2 ranges"):
        ranges.take()
    ranges.release(first.start)
    assert ranges.take() == first


def test_a_second_release_frees_no_other_range() -> None:
    ranges = IdRanges(0, 65536)
    ranges.release(0)
    assert ranges.take() == IdRange(0)
    with pytest.raises(Unavailable):
        ranges.take()


def test_restored_ranges_count_each_running_container() -> None:
    ranges = IdRanges(0, 65536)
    ranges.restore([0])
    ranges.restore([0])
    ranges.release(0)
    with pytest.raises(Unavailable):
        ranges.take()


def test_all_containers_of_a_rootless_engine_share_one_range() -> None:
    one = SingleIdRange(65536)
    one.share(0)
    one.release(0)
    assert one.take() == one.take() == IdRange(0)


@pytest.mark.parametrize("own", [1, 1000, 65534, 65535])
def test_keep_id_maps_one_id_to_itself_and_the_others_into_the_range(own: int) -> None:
    rows = keep_id_mappings(IdRange(2_000_000), own)

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
        keep_id_mappings(IdRange(0), own)


def test_ranges_never_overlap_until_all_are_in_use() -> None:
    used: set[int] = set()
    for _ in range(16):
        found = allocate(used, 1000, 16 * 100 + 99, 100)
        assert found.start >= 1000
        assert found.start + 100 <= 1000 + 1699
        assert all(abs(found.start - other) >= 100 for other in used)
        used.add(found.start)
    with pytest.raises(Unavailable, match="16 ranges"):
        allocate(used, 1000, 16 * 100 + 99, 100)


def test_a_released_range_is_allocated_again() -> None:
    used = {1000, 1200, 1300}
    assert allocate(used | {1400}, 1000, 500, 100) == IdRange(1100, 100)


def test_ranges_of_another_configuration_are_not_overlapped() -> None:
    used = {1050}
    starts = set()
    for _ in range(3):
        starts.add(allocate(used | starts, 1000, 500, 100).start)
    assert starts == {1200, 1300, 1400}
    with pytest.raises(Unavailable):
        allocate(used | starts, 1000, 500, 100)


def test_too_few_ids_for_one_range_is_a_clear_error() -> None:
    with pytest.raises(Unavailable):
        allocate((), 0, 65535)


def test_a_range_is_mapped_from_zero() -> None:
    assert mappings(IdRange(70000)) == (IDMapping(0, 70000, 65536),)
