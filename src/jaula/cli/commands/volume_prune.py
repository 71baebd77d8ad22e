"""``jaula volume prune``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import prune


def run(options: Options) -> int:
    """Prompt, remove the volumes and print the result."""
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
        Flag("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
        prune.FILTER,
        prune.FORCE,
    ),
    max_args=0,
    description="Removes volumes that no container uses, running or not.",
    examples=(("Do not prompt", "jaula volume prune -f"),),
    see_also=("system prune", "system df"),
)
