"""Ranges of subordinate ids, and the maps made from them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jaula.engine.userns.id_ranges import SingleIdRange
from jaula.rootless.subids import Range, id_map, map_size, ranges

TEXT = """\
# a comment
other:100000:65536
me:200000:65536
1000:300000:10
me:400000:0
me:nonsense:5
me:1:2:3
me:500000:1000
"""


def test_a_user_has_the_ranges_of_its_name_and_its_uid() -> None:
    expected = (Range(200_000, 65536), Range(300_000, 10), Range(500_000, 1000))
    assert ranges(TEXT, "me", 1000) == expected


def test_a_duplicate_range_counts_once() -> None:
    assert ranges("me:5:6\nme:5:6\n", "me", 1000) == (Range(5, 6),)


@given(st.text(max_size=200))
def test_any_text_is_accepted(text: str) -> None:
    assert all(result.size > 0 for result in ranges(text, "me", 1000))


def test_the_user_is_mapped_to_zero_and_the_ranges_follow() -> None:
    rows = id_map(1000, (Range(200_000, 65536), Range(300_000, 10)))
    assert rows == [(0, 1000, 1), (1, 200_000, 65536), (65537, 300_000, 10)]
    assert map_size(rows) == 65547


def test_each_row_of_a_container_is_within_one_row_of_the_engine() -> None:
    result = SingleIdRange(65547, [0, 1, 65537])
    rows = [(m.container_id, m.host_id, m.size) for m in result.mappings(result.take())]
    assert rows == [(0, 0, 1), (1, 1, 65536), (65537, 65537, 10)]


def test_rows_are_split_at_the_boundaries_of_both_maps() -> None:
    result = SingleIdRange(100, [0, 1, 50, 0, 1, 70])
    rows = [(m.container_id, m.size) for m in result.mappings(result.take())]
    assert rows == [(0, 1), (1, 49), (50, 20), (70, 30)]


def test_a_row_of_the_longer_map_alone_is_ignored() -> None:
    result = SingleIdRange(60, [0, 1, 50, 70])
    assert [(m.container_id, m.size) for m in result.mappings(result.take())] == [
        (0, 1),
        (1, 49),
        (50, 10),
    ]


def test_every_container_has_the_same_range() -> None:
    ids = SingleIdRange(65537, [0, 1])
    first = ids.take()
    ids.release(first.start)
    assert ids.take() == first == ids.take()
