"""``jaula builder prune``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, filters
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import prune_prompt
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress


def run(options: Options) -> int:
    """Remove the build cache."""
    all_entries = options.on("all")
    warning = "This will remove all dangling build cache."
    if all_entries:
        warning = "This will remove all build cache."
    prune_prompt.confirm(warning, force=options.on("force"))
    reserved = options.number("reserved-space") or options.number("keep-storage")
    query = (
        ("all", all_entries),
        ("reserved-space", reserved or ""),
        ("max-used-space", options.number("max-used-space") or ""),
        ("min-free-space", options.number("min-free-space") or ""),
        ("filters", filters(options.texts("filter"))),
    )
    client = Client(Settings.host)
    with Progress("prune build cache"):
        answer = client.document("POST", "/build/prune", query) or {}
    prune_prompt.print_deleted(
        "Deleted build cache objects", list(answer.get("CachesDeleted") or ())
    )
    prune_prompt.print_reclaimed(answer.get("SpaceReclaimed") or 0)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Remove build cache",
    run,
    flags=(
        Flag("all", "a", "bool", "Remove all unused build cache, also entries that images share"),
        Flag("filter", "", "list", "Provide filter values (until=24h, type=regular)"),
        prune_prompt.FORCE,
        Flag("keep-storage", "", "size", "Amount of disk space to keep for cache"),
        Flag("reserved-space", "", "size", "Amount of disk space always allowed to keep for cache"),
        Flag(
            "max-used-space", "", "size", "Maximum amount of disk space allowed to keep for cache"
        ),
        Flag("min-free-space", "", "size", "Target amount of free disk space after pruning"),
    ),
    max_args=0,
    description=(
        "Removes the cached layers of build steps and the directories of RUN "
        "--mount=type=cache. Images are not changed."
    ),
    examples=(("Remove entries unused for a week", "jaula builder prune -f --filter until=168h"),),
    see_also=("build", "system df", "image prune"),
)
