"""``jaula container prune``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.cli.images import prune


def run(options: Options) -> int:
    """Prompt, remove the containers and print the result."""
    return prune.prune(options, "containers", "This will remove all stopped containers.")


COMMAND = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    run,
    flags=(
        prune.FILTER,
        prune.FORCE,
    ),
    max_args=0,
    description="Removes the containers with their writable layers; volumes are kept.",
    examples=(("Do not prompt", "jaula container prune -f"),),
    see_also=("system prune", "system df"),
)
