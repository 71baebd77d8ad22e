"""The part of the host's process tree that one caller may see. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Document = dict[str, Any]


def of_containers(processes: Sequence[Document], may_read: Callable[[str], bool]) -> list[Document]:
    """Return the processes of containers that the caller may read, and no other process.

    A row has ``Pid``, ``Parent``, for a process of a container ``Inside``, and for the first one
    ``Container``. What is above a container is the host's: a parent that is no row is 0.
    """
    rows = [row for row in processes if (id := row.get("Inside")) and may_read(id)]
    known = {row["Pid"] for row in rows}
    return [row if row["Parent"] in known else row | {"Parent": 0} for row in rows]
