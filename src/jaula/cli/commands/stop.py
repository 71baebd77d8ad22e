"""``jaula stop``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.cli.containers import stop_options
from jaula.cli.for_each import each_container


def run(options: Options) -> int:
    """Stop every container named."""
    return each_container(options.arguments, "stop", stop_options.query(options))


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    run,
    flags=stop_options.FLAGS,
    least=1,
    description=(
        "Sends the container's stop signal (SIGTERM unless the image or --stop-signal names "
        "another), and SIGKILL when it has not ended after ten seconds or the time given."
    ),
    examples=(("Stop without patience", "jaula stop -t 0 web"),),
    see_also=("kill", "start", "restart"),
    completes="container",
)
