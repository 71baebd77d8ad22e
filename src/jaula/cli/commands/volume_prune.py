"""``jaula volume prune``."""

from __future__ import annotations

from jaula.cli.client.client import Client, filters
from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import prune
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Prompt, remove the volumes and print the result."""
    conditions = options.texts("filter")
    warning = "This will remove anonymous local volumes not used by at least one container."
    if options.on("all"):
        warning = "This will remove all local volumes not used by at least one container."
        conditions.append("all=true")
    prune.confirm(warning, force=options.on("force"))
    lines, total = prune.prune_objects(Client(Settings.host), "volumes", filters(conditions))
    prune.print_deleted("Deleted Volumes", lines)
    prune.print_reclaimed(total)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Remove unused local volumes",
    run,
    flags=(
        Flag("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
        Flag("filter", "", "list", "Provide filter values (until=24h, label=a=b)"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    ),
    max_args=0,
    description="Removes volumes that no container uses, running or not.",
    examples=(("Do not prompt", "jaula volume prune -f"),),
    see_also=("system prune", "system df"),
)
