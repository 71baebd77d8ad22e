"""``jaula restart``."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Options
from jaula.cli.commands import stop
from jaula.cli.for_each import each_container


def run(options: Options) -> int:
    """Restart the containers."""
    return each_container(options.arguments, "restart", stop.query(options))


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Restart one or more containers",
    run,
    flags=stop.FLAGS,
    min_args=1,
    description="Stops the container as stop does and starts it again.",
    examples=(("Restart a container", "jaula restart web"),),
    see_also=("stop", "start"),
    completes="container",
)
