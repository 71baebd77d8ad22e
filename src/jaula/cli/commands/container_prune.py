"""``jaula container prune``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.cli.images import prune


def run(options: Options) -> int:
    """Ask, remove, and print what is gone."""
    return prune.prune(options, "containers", "This will remove all stopped containers.")


COMMAND = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    run,
    flags=(
        prune.FILTER,
        prune.FORCE,
    ),
    most=0,
    description="What they have written goes with them; volumes stay.",
    examples=(("Without a question", "jaula container prune -f"),),
    see_also=("system prune", "system df"),
)
