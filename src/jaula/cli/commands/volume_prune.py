"""``jaula volume prune``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import prune


def run(options: Options) -> int:
    """Ask, remove, and print what is gone."""
    if options.on("all"):
        warning = "This will remove all local volumes not used by at least one container."
        return prune.prune(options, "volumes", warning, ["all=true"])
    warning = "This will remove anonymous local volumes not used by at least one container."
    return prune.prune(options, "volumes", warning)


COMMAND = Command(
    "[OPTIONS]",
    "Remove unused local volumes",
    run,
    flags=(
        Flag("all", "a", "bool", "Named volumes too"),
        prune.FILTER,
        prune.FORCE,
    ),
    most=0,
    description="Removes volumes that no container refers to, running or not.",
    examples=(("Without a question", "jaula volume prune -f"),),
    see_also=("system prune", "system df"),
)
