"""``jaula pause``."""

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
        lambda name: client.request("POST", f"/containers/{quote(name)}/pause"),
    )


COMMAND = Command(
    "CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    run,
    least=1,
    description=("Freezes every process of the container through its cgroup."),
    examples=(("Pause a container", "jaula pause web"),),
    see_also=("unpause",),
    completes="container",
)
