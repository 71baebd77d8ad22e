"""``jaula network inspect``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import inspect


def run(options: Options) -> int:
    """Print the documents of the networks."""
    client = Client(Settings.host)
    return inspect.show(
        options.arguments,
        options.text("format"),
        lambda name: client.get(f"/networks/{quote(name)}"),
    )


COMMAND = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    run,
    flags=(
        inspect.FORMAT,
        Flag(
            "verbose",
            "v",
            "bool",
            "Verbose output for diagnostics (no effect: there are no services)",
        ),
    ),
    min_args=1,
    description="Prints Docker's document of each network as JSON, or the output of a template.",
    examples=(("Inspect a network", "jaula network inspect bridge"),),
    see_also=("inspect", "network ls"),
    completes="network",
)
