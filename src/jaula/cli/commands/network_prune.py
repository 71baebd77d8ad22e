"""``jaula network prune``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.cli.images import prune


def run(options: Options) -> int:
    """Ask, remove, and print what is gone."""
    warning = "This will remove all custom networks not used by at least one container."
    return prune.prune(options, "networks", warning)


COMMAND = Command(
    "[OPTIONS]",
    "Remove unused networks",
    run,
    flags=(
        prune.FILTER,
        prune.FORCE,
    ),
    most=0,
    description="Removes networks that no running container is connected to.",
    examples=(("Without a question", "jaula network prune -f"),),
    see_also=("network rm", "system prune"),
)
