"""``jaula image prune``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import prune


def run(options: Options) -> int:
    """Ask, remove, and print what is gone."""
    if options.on("all"):
        warning = "This will remove all images without at least one container associated to them."
        return prune.prune(options, "images", warning, ["dangling=false"])
    warning = "This will remove all dangling images."
    return prune.prune(options, "images", warning, ["dangling=true"])


COMMAND = Command(
    "[OPTIONS]",
    "Remove unused images",
    run,
    flags=(
        Flag("all", "a", "bool", "Remove every image that no container uses"),
        prune.FILTER,
        prune.FORCE,
    ),
    most=0,
    description="Removes images that no name refers to, with -a those that no container uses.",
    examples=(("Without a question", "jaula image prune -f"),),
    see_also=("system prune", "system df"),
)
