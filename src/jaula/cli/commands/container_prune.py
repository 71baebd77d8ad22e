"""``jaula container prune``."""

from __future__ import annotations

from jaula.cli.client.client import Client, filters
from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import prune
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Prompt, remove the containers and print the result."""
    conditions = options.texts("filter")
    warning = "This will remove all stopped containers."
    prune.confirm(warning, force=options.on("force"))
    lines, total = prune.prune_objects(Client(Settings.host), "containers", filters(conditions))
    prune.print_deleted("Deleted Containers", lines)
    prune.print_reclaimed(total)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    run,
    flags=(
        Flag("filter", "", "list", "Provide filter values (until=24h, label=a=b)"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    ),
    max_args=0,
    description="Removes the containers with their writable layers; volumes are kept.",
    examples=(("Do not prompt", "jaula container prune -f"),),
    see_also=("system prune", "system df"),
)
