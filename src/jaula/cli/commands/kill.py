"""``jaula kill``."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.for_each import each_container


def run(options: Options) -> int:
    """Send a signal to every container."""
    return each_container(options.arguments, "kill", (("signal", options.text("signal")),))


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    run,
    flags=(Flag("signal", "s", "string", "Signal to send to the container", default="KILL"),),
    min_args=1,
    description="Sends a signal, SIGKILL by default, to the init process of the container.",
    examples=(("Make a server reload its configuration", "jaula kill -s HUP web"),),
    see_also=("stop",),
    completes="container",
)
