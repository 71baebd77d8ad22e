"""Prompt before objects are pruned, and print what was pruned."""

from __future__ import annotations

import sys

from jaula.cli import units
from jaula.cli.errors import ExitStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.client.client import Client


def confirm(warning: str, *, force: bool) -> None:
    """Prompt on the terminal unless ``force`` is set.

    :raises ExitStatus: when the answer is not yes.
    """
    if force:
        return
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ExitStatus(1 if not sys.stdin.isatty() else 0)


def prune_images(client: Client, conditions: str) -> tuple[list[str], int]:
    """Prune images; return the lines to print and the bytes reclaimed."""
    answer = client.document("POST", "/images/prune", (("filters", conditions),)) or {}
    rows: list[dict[str, Any]] = answer.get("ImagesDeleted") or []
    lines = [f"{action.lower()}: {name}" for row in rows for action, name in row.items()]
    return lines, answer.get("SpaceReclaimed") or 0


def prune_build_cache(
    client: Client, conditions: list[str], *, all_entries: bool
) -> tuple[list[str], int]:
    """Prune the build cache; return the lines to print and the bytes reclaimed.

    Label filters are dropped: the cache has no labels. ``all_entries`` includes shared entries.
    """
    from jaula.cli.client.client import filters

    supported = filters([text for text in conditions if not text.startswith("label")])
    query = (("all", all_entries), ("filters", supported))
    answer = client.document("POST", "/build/prune", query) or {}
    return list(answer.get("CachesDeleted") or ()), answer.get("SpaceReclaimed") or 0


def prune_objects(client: Client, kind: str, conditions: str) -> tuple[list[str], int]:
    """Prune containers, networks or volumes; return the lines to print and the bytes reclaimed."""
    answer = client.document("POST", f"/{kind}/prune", (("filters", conditions),)) or {}
    return (
        list(answer.get(f"{kind.capitalize()}Deleted") or ()),
        answer.get("SpaceReclaimed") or 0,
    )


def print_deleted(heading: str, lines: list[str]) -> None:
    """Print what was deleted."""
    if lines:
        print(f"{heading}:\n" + "\n".join(lines) + "\n")


def print_reclaimed(total: int) -> None:
    """Print the last line of a prune command."""
    print(f"Total reclaimed space: {units.human_size(total)}")
