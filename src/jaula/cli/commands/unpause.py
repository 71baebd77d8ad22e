"""``jaula unpause``."""

from __future__ import annotations

from jaula.cli.client import Client, quote
from jaula.cli.flags import Command, Options
from jaula.cli.main import Settings
from jaula.cli.several import each


def run(options: Options) -> int:
    """Do it to every container named."""
    client = Client(Settings.host)
    return each(
        options.arguments,
        lambda name: client.request("POST", f"/containers/{quote(name)}/unpause"),
    )


COMMAND = Command(
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    run,
    least=1,
    description=("Lets the processes of a paused container go on."),
    examples=(("Let it go on", "jaula unpause web"),),
    see_also=("pause",),
    completes="container",
)
