"""``jaula container prune``."""

from __future__ import annotations

from jaula.cli import pruning
from jaula.cli.client import Client, filters
from jaula.cli.flags import Command, Flag, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Ask, remove, and say what is gone."""
    conditions = options.texts("filter")
    warning = "This will remove all stopped containers."
    pruning.confirm(warning, force=options.on("force"))
    lines, total = pruning.named(Client(Settings.host), "containers", filters(conditions))
    pruning.tell("Deleted Containers", lines)
    pruning.reclaimed(total)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    run,
    flags=(
        Flag("filter", "", "list", "Only what matches (until=24h, label=a=b)"),
        Flag("force", "f", "bool", "Do not ask"),
    ),
    most=0,
    description="What they have written goes with them; volumes stay.",
    examples=(("Without a question", "jaula container prune -f"),),
    see_also=("system prune", "system df"),
)
