"""``jaula volume rm``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.for_each import each
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Remove the volumes with their contents."""
    client = Client(Settings.host)
    query = (("force", options.on("force")),)
    return each(
        options.arguments,
        lambda name: client.request("DELETE", f"/volumes/{quote(name)}", query),
    )


COMMAND = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes",
    run,
    flags=(
        Flag(
            "force",
            "f",
            "bool",
            "Force the removal of one or more volumes (ignore those that do not exist)",
        ),
    ),
    min_args=1,
    description="A volume that a container uses, running or not, is not removed.",
    examples=(("Remove a volume", "jaula volume rm data"),),
    see_also=("volume ls", "volume prune"),
    completes="volume",
)
