"""``jaula stop``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.for_each import each_container

FLAGS = (
    Flag("signal", "s", "string", "Signal to send to the container"),
    Flag("time", "t", "int", "Seconds to wait before killing the container (-1 waits for ever)"),
    Flag("timeout", "", "int", "Alias of --time"),
)


def query(options: Options) -> tuple[tuple[str, str], ...]:
    """What the API is asked; empty values leave it to the container's own signal and time."""
    seconds = next(
        (str(options.number(name)) for name in ("time", "timeout") if options.is_set(name)), ""
    )
    return (("signal", options.text("signal")), ("t", seconds))


def run(options: Options) -> int:
    """Stop every container named."""
    return each_container(options.arguments, "stop", query(options))


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    run,
    flags=FLAGS,
    min_args=1,
    description=(
        "Sends the container's stop signal (SIGTERM unless the image or --stop-signal names "
        "another), and SIGKILL when it has not ended after ten seconds or the time given."
    ),
    examples=(("Stop without patience", "jaula stop -t 0 web"),),
    see_also=("kill", "start", "restart"),
    completes="container",
)
