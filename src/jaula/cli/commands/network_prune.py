"""``jaula network prune``."""

from __future__ import annotations

from jaula.cli.client.client import Client, filters
from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import prune
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Prompt, remove the networks and print the result."""
    prune.confirm(
        "This will remove all custom networks not used by at least one container.",
        force=options.on("force"),
    )
    conditions = filters(options.texts("filter"))
    lines, _ = prune.prune_objects(Client(Settings.host), "networks", conditions)
    prune.print_deleted("Deleted Networks", lines)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Remove all unused networks",
    run,
    flags=(
        Flag("filter", "", "list", "Provide filter values (until=24h, label=a=b)"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    ),
    max_args=0,
    description="Removes the networks that no running container is connected to.",
    examples=(("Do not prompt", "jaula network prune -f"),),
    see_also=("network rm", "system prune"),
)
