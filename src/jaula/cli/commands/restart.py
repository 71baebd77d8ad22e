"""``jaula restart``."""

from __future__ import annotations

from jaula.cli.client import Client, quote
from jaula.cli.flags import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.several import each
from jaula.cli.stopping import seconds_to_stop


def run(options: Options) -> int:
    """Do it to every container named."""
    client = Client(Settings.host)
    query = (
        ("signal", options.text("signal")),
        ("t", seconds_to_stop(options)),
    )
    return each(
        options.arguments,
        lambda name: client.request("POST", f"/containers/{quote(name)}/restart", query),
    )


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Restart one or more containers",
    run,
    flags=(
        Flag("signal", "s", "string", "Signal to send instead of the container's own"),
        Flag("time", "t", "int", "Seconds to wait before SIGKILL; -1 waits for ever"),
        Flag("timeout", "", "int", "The same as --time"),
    ),
    least=1,
    description=("Stops the container as stop does and starts it again."),
    examples=(("Restart a container", "jaula restart web"),),
    see_also=("stop", "start"),
    completes="container",
)
