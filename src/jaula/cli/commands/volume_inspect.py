"""``jaula volume inspect``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Options
from jaula.cli.main import Settings
from jaula.cli.output import inspect


def run(options: Options) -> int:
    """Print the documents of the volumes."""
    client = Client(Settings.host)
    return inspect.show(
        options.arguments,
        options.text("format"),
        lambda name: client.get(f"/volumes/{quote(name)}"),
    )


COMMAND = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    run,
    flags=(inspect.FORMAT,),
    min_args=1,
    description="Prints Docker's document of each volume as JSON, or the output of a template.",
    examples=(("Inspect a volume", "jaula volume inspect data"),),
    see_also=("inspect", "volume ls"),
    completes="volume",
)
