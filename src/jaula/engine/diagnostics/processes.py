"""The part of the host's process tree that one caller may see. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Document = dict[str, Any]


def with_ancestors(
    processes: Sequence[Document], may_read: Callable[[str], bool]
) -> list[Document]:
    """Return the processes of containers that the caller may read, and the ancestors of these.

    A row has ``Pid``, ``Parent`` and, for the first process of a container, ``Container``.
    """
    parents = {row["Pid"]: row["Parent"] for row in processes}
    first = {row["Pid"] for row in processes if may_read(row.get("Container", ""))}
    kept: set[int] = set()
    for pid in first:
        while pid in parents and pid not in kept:
            kept.add(pid)
            pid = parents[pid]
    inside: dict[int, bool] = {}

    def is_inside(pid: int) -> bool:
        """Return whether a process descends from the first one of a readable container."""
        path = []
        current = pid
        while current in parents and current not in inside and current not in first:
            path.append(current)
            inside[current] = False  # ends a circle
            current = parents[current]
        found = current in first or inside.get(current, False)
        inside.update(dict.fromkeys(path, found))
        return found

    return [row for row in processes if row["Pid"] in kept or is_inside(row["Pid"])]
