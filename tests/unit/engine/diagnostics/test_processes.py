"""The part of the host's process tree that a caller may see."""

from __future__ import annotations

from typing import Any

from jaula.engine.diagnostics.processes import with_ancestors


def process(pid: int, parent: int, container: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {"Pid": pid, "Parent": parent, "Name": f"p{pid}", "Changes": []}
    return row | ({"Container": container} if container else {})


TREE = [
    process(1, 0),
    process(2, 1),  # a service of the host
    process(3, 2),
    process(10, 1),  # a shim
    process(11, 10, "mine"),
    process(12, 11),
    process(13, 12),
    process(20, 1),  # another shim
    process(21, 20, "theirs"),
    process(22, 21),
]


def test_a_caller_sees_its_containers_and_what_is_above_them() -> None:
    rows = with_ancestors(TREE, lambda container: container == "mine")
    assert [row["Pid"] for row in rows] == [1, 10, 11, 12, 13]


def test_a_caller_without_containers_sees_nothing() -> None:
    assert with_ancestors(TREE, lambda _: False) == []


def test_a_circle_of_parents_ends() -> None:
    circle = [process(5, 6), process(6, 5), process(7, 7, "mine")]
    assert [row["Pid"] for row in with_ancestors(circle, lambda c: c == "mine")] == [7]
