"""Prompt before objects are pruned, and print what was pruned."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import ExitStatus
from jaula.cli.client.api_client import Client, filters
from jaula.cli.command_parser import Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress
from jaula.spec import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FILTER = Flag("filter", "", "list", "Provide filter values (until=24h, label=a=b)")
FORCE = Flag("force", "f", "bool", "Do not prompt for confirmation")


def prune(options: Options, kind: str, warning: str, conditions: Sequence[str] = ()) -> int:
    """Prompt, prune ``kind`` (containers, images, networks, volumes) and print the result.

    ``conditions`` are filters in addition to those of ``--filter``.

    :raises ExitStatus: when the answer is not yes.
    """
    confirm(warning, force=options.on("force"))
    client, text = Client(Settings.host), filters([*options.texts("filter"), *conditions])
    if kind == "images":
        lines, total = prune_images(client, text)
    else:
        lines, total = prune_objects(client, kind, text)
    print_deleted(f"Deleted {kind.capitalize()}", lines)
    if kind != "networks":
        print_reclaimed(total)
    return 0


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
    with Progress("prune images"):
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
    supported = filters([text for text in conditions if not text.startswith("label")])
    query = (("all", all_entries), ("filters", supported))
    with Progress("prune build cache"):
        answer = client.document("POST", "/build/prune", query) or {}
    return list(answer.get("CachesDeleted") or ()), answer.get("SpaceReclaimed") or 0


def prune_objects(client: Client, kind: str, conditions: str) -> tuple[list[str], int]:
    """Prune containers, networks or volumes; return the lines to print and the bytes reclaimed."""
    with Progress(f"prune {kind}"):
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
