"""``jaula stop``."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import cidfile
from jaula.cli.for_each import each_container_at_once

FLAGS = (
    Flag("signal", "s", "string", "Signal to send to the container"),
    Flag("time", "t", "int", "Seconds to wait before killing the container (-1 waits for ever)"),
    Flag("timeout", "", "int", "Alias of --time"),
)


def query(options: Options) -> tuple[tuple[str, str], ...]:
    """Return the query of stop and restart; empty values select the container's own settings."""
    seconds = next(
        (str(options.number(name)) for name in ("time", "timeout") if options.is_set(name)), ""
    )
    return (("signal", options.text("signal")), ("t", seconds))


def run(options: Options) -> int:
    """Stop the containers."""
    ignored = cidfile.MISSING if options.on("ignore") else 0
    names = cidfile.containers(options, cidfile.files(options))
    return each_container_at_once(names, "stop", query(options), ignored=ignored)


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    run,
    flags=(*FLAGS, *cidfile.FLAGS),
    description=(
        "Sends the container's stop signal (default: SIGTERM), and SIGKILL if the container is "
        "still running after ten seconds or the given time."
    ),
    examples=(("Stop immediately", "jaula stop -t 0 web"),),
    see_also=("kill", "start", "restart"),
    completes="container",
)
