"""``jaula image prune``."""

from __future__ import annotations

from jaula.cli.client.client import Client, filters
from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import prune
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Prompt, remove the images and print the result."""
    conditions = options.texts("filter")
    warning = "This will remove all dangling images."
    if options.on("all"):
        warning = "This will remove all images without at least one container associated to them."
    conditions.append("dangling=false" if options.on("all") else "dangling=true")
    prune.confirm(warning, force=options.on("force"))
    lines, total = prune.prune_images(Client(Settings.host), filters(conditions))
    prune.print_deleted("Deleted Images", lines)
    prune.print_reclaimed(total)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Remove unused images",
    run,
    flags=(
        Flag("all", "a", "bool", "Remove all unused images, not just dangling ones"),
        Flag("filter", "", "list", "Provide filter values (until=24h, label=a=b)"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    ),
    max_args=0,
    description="Removes untagged images; with -a, every image that no container uses.",
    examples=(("Do not prompt", "jaula image prune -f"),),
    see_also=("system prune", "system df"),
)
