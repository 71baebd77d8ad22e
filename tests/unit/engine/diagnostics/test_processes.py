"""The part of the host's process tree that a caller may see."""

from __future__ import annotations

from typing import Any

from jaula.features.verify.diagnostics.processes import of_containers


def process(pid: int, parent: int, inside: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {"Pid": pid, "Parent": parent, "Name": f"p{pid}", "Changes": []}
    return row | ({"Inside": inside} if inside else {})


TREE = [
    process(1, 0),
    process(2, 1),  # a service of the host
    process(10, 1),  # a shim
    process(11, 10, "mine"),
    process(12, 11, "mine"),
    process(13, 10, "mine"),  # of an exec
    process(14, 11, "theirs"),  # adopted by the first process of another container
    process(20, 1),  # another shim
    process(21, 20, "theirs"),
]


def test_a_caller_sees_the_processes_of_its_containers_only() -> None:
    rows = of_containers(TREE, lambda container: container == "mine")
    assert [(row["Pid"], row["Parent"]) for row in rows] == [(11, 0), (12, 11), (13, 0)]


def test_a_caller_without_containers_sees_nothing() -> None:
    assert of_containers(TREE, lambda _: False) == []


def test_a_parent_that_is_hidden_is_zero() -> None:
    (row,) = of_containers([process(14, 11, "theirs")], lambda _: True)
    assert row["Parent"] == 0
