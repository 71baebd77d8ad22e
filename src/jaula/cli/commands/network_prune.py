"""``jaula network prune``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.cli.images import prune


def run(options: Options) -> int:
    """Prompt, remove the networks and print the result."""
    warning = "This will remove all custom networks not used by at least one container."
    return prune.prune(options, "networks", warning)


COMMAND = Command(
    "[OPTIONS]",
    "Remove all unused networks",
    run,
    flags=(
        prune.FILTER,
        prune.FORCE,
    ),
    max_args=0,
    description="Removes the networks that no running container is connected to.",
    examples=(("Do not prompt", "jaula network prune -f"),),
    see_also=("network rm", "system prune"),
)
