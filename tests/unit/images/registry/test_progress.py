"""Progress messages."""

from __future__ import annotations

import pytest

from jaula.images.registry import progress_messages


@pytest.mark.parametrize(
    ("current", "total", "shown"),
    [
        (32768, 1106811, "[=>" + " " * 49 + "]  32.77kB/1.107MB"),
        (1106811, 1106811, "[" + "=" * 50 + ">]  1.107MB/1.107MB"),
        (40448, 2025035, "[>" + " " * 50 + "]  40.45kB/2.025MB"),
        (2181120, 2025035, "[" + "=" * 50 + ">]  2.181MB"),
        (5, 0, "      5B"),
    ],
)
def test_the_bar_is_dockers(current: int, total: int, shown: str) -> None:
    assert progress_messages.bar(current, total) == shown


def test_a_slow_reader_sees_the_newest_amount_of_each_line() -> None:
    board = progress_messages.ProgressBoard()
    for number in range(1000):
        board.update(progress_messages.amount("Downloading", "a", number, 1000), last=True)
        board.update(progress_messages.amount("Downloading", "b", number, 1000), last=True)
    board.post(progress_messages.status("Download complete", "a"))
    result = list(board.take(0))
    assert [m["id"] for m in result] == ["a", "b", "a"]
    assert [m.get("progressDetail") for m in result] == [
        {"current": 999, "total": 1000},
        {"current": 999, "total": 1000},
        {},
    ]
