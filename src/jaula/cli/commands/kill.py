"""``jaula kill``."""

from __future__ import annotations

from jaula.cli.client import Client, quote
from jaula.cli.flags import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.several import each


def run(options: Options) -> int:
    """Do it to every container named."""
    client = Client(Settings.host)
    query = (("signal", options.text("signal")),)
    return each(
        options.arguments,
        lambda name: client.request("POST", f"/containers/{quote(name)}/kill", query),
    )


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    run,
    flags=(Flag("signal", "s", "string", "Signal to send", default="KILL"),),
    least=1,
    description=(
        "Sends a signal, SIGKILL unless another is named, to the container's first process."
    ),
    examples=(("Tell a server to read its configuration again", "jaula kill -s HUP web"),),
    see_also=("stop",),
    completes="container",
)
