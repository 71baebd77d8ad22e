"""Asking before something is pruned, and saying what was."""

from __future__ import annotations

import sys

from jaula.cli import units
from jaula.cli.errors import ExitStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.client.client import Client


def confirm(warning: str, *, force: bool) -> None:
    """Ask on the terminal unless ``force``. Raises Leave for anything but yes."""
    if force:
        return
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ExitStatus(1 if not sys.stdin.isatty() else 0)


def prune_images(client: Client, conditions: str) -> tuple[list[str], int]:
    """Prune images; the lines to show and the bytes."""
    found = client.document("POST", "/images/prune", (("filters", conditions),)) or {}
    rows: list[dict[str, Any]] = found.get("ImagesDeleted") or []
    lines = [f"{what.lower()}: {which}" for row in rows for what, which in row.items()]
    return lines, found.get("SpaceReclaimed") or 0


def prune_build_cache(
    client: Client, conditions: list[str], *, every: bool
) -> tuple[list[str], int]:
    """Prune what builds keep; the lines to show and the bytes. It has no labels to go by."""
    from jaula.cli.client.client import filters

    known = filters([text for text in conditions if not text.startswith("label")])
    query = (("all", every), ("filters", known))
    found = client.document("POST", "/build/prune", query) or {}
    return list(found.get("CachesDeleted") or ()), found.get("SpaceReclaimed") or 0


def prune_objects(client: Client, kind: str, conditions: str) -> tuple[list[str], int]:
    """Prune containers, networks or volumes; the lines to show and the bytes."""
    found = client.document("POST", f"/{kind}/prune", (("filters", conditions),)) or {}
    return (
        list(found.get(f"{kind.capitalize()}Deleted") or ()),
        found.get("SpaceReclaimed") or 0,
    )


def print_deleted(heading: str, lines: list[str]) -> None:
    """Show what is gone."""
    if lines:
        print(f"{heading}:\n" + "\n".join(lines) + "\n")


def print_reclaimed(total: int) -> None:
    """The last line of every prune."""
    print(f"Total reclaimed space: {units.human_size(total)}")
