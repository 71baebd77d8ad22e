"""``jaula container inspect``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output


def run(options: Options) -> int:
    """Print the documents of the containers."""
    client = Client(Settings.host)
    size = (("size", options.on("size")),)
    return inspect_output.show(
        options.arguments,
        options.text("format"),
        lambda name: client.get(f"/containers/{quote(name)}/json", size),
    )


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    run,
    flags=(inspect_output.FORMAT, Flag("size", "s", "bool", "Display total file sizes")),
    min_args=1,
    description="Prints Docker's document of each container as JSON, or the output of a template.",
    examples=(("Inspect a container", "jaula container inspect web"),),
    see_also=("inspect", "ps"),
    completes="container",
)
