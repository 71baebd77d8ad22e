"""``jaula stop``."""

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
        lambda name: client.request("POST", f"/containers/{quote(name)}/stop", query),
    )


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    run,
    flags=(
        Flag("signal", "s", "string", "Signal to send instead of the container's own"),
        Flag("time", "t", "int", "Seconds to wait before SIGKILL; -1 waits for ever"),
        Flag("timeout", "", "int", "The same as --time"),
    ),
    least=1,
    description=(
        "Sends the container's stop signal (SIGTERM unless the image or --stop-signal names "
        "another), and SIGKILL when it has not ended after ten seconds or the time given."
    ),
    examples=(("Stop without patience", "jaula stop -t 0 web"),),
    see_also=("kill", "start", "restart"),
    completes="container",
)
