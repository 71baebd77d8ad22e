"""``jaula image prune``."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import prune_prompt


def run(options: Options) -> int:
    """Prompt, remove the images and print the result."""
    if options.on("all"):
        warning = "This will remove all images without at least one container associated to them."
        return prune_prompt.prune(options, "images", warning, ["dangling=false"])
    warning = "This will remove all dangling images."
    return prune_prompt.prune(options, "images", warning, ["dangling=true"])


COMMAND = Command(
    "[OPTIONS]",
    "Remove unused images",
    run,
    flags=(
        Flag("all", "a", "bool", "Remove all unused images, not just dangling ones"),
        prune_prompt.FILTER,
        prune_prompt.FORCE,
    ),
    max_args=0,
    description="Removes untagged images; with -a, every image that no container uses.",
    examples=(("Do not prompt", "jaula image prune -f"),),
    see_also=("system prune", "system df"),
)
