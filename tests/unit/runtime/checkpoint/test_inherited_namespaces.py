"""Clocks of a container go on from its checkpoint, and limits are those that it may have."""

from __future__ import annotations

import pytest

from jaula.features.checkpoint.runtime.inherited_namespaces import clock_offsets
from jaula.features.checkpoint.runtime.proto import images_pb2

SECOND = 1_000_000_000
NONE = {"monotonic": 0, "boottime": 0}


def saved(monotonic: float, boottime: float) -> images_pb2.TimeNamespace:
    values = [
        images_pb2.Timespec(tv_sec=int(value), tv_nsec=int(value % 1 * SECOND))
        for value in (monotonic, boottime)
    ]
    return images_pb2.TimeNamespace(monotonic=values[0], boottime=values[1])


@pytest.mark.parametrize(
    ("now", "own", "offset"),
    [
        (100, 0, "0 0"),
        (250, 0, "-150 0"),
        (40, 0, "60 0"),
        (100.25, 0, "-1 750000000"),
        (250, 200, "50 0"),  # this process is in a time namespace that is 200 seconds ahead
    ],
    ids=["same boot", "later", "another host", "fraction", "within a time namespace"],
)
def test_clocks_go_on_where_they_were(now: float, own: int, offset: str) -> None:
    clocks = {name: int(now * SECOND) for name in NONE}
    text = clock_offsets(saved(100, 100), dict.fromkeys(NONE, own * SECOND), clocks)
    assert text.decode() == f"monotonic {offset}\nboottime {offset}\n"


def test_each_clock_has_its_own_offset() -> None:
    now = {"monotonic": 10 * SECOND, "boottime": 20 * SECOND}
    assert clock_offsets(saved(11, 25.5), NONE, now) == b"monotonic 1 0\nboottime 5 500000000\n"
