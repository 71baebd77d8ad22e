"""``jaula container prune``."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Options
from jaula.cli.images import prune_prompt


def run(options: Options) -> int:
    """Prompt, remove the containers and print the result."""
    return prune_prompt.prune(options, "containers", "This will remove all stopped containers.")


COMMAND = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    run,
    flags=(
        prune_prompt.FILTER,
        prune_prompt.FORCE,
    ),
    max_args=0,
    description="Removes the containers with their writable layers; volumes are kept.",
    examples=(("Do not prompt", "jaula container prune -f"),),
    see_also=("system prune", "system df"),
)
