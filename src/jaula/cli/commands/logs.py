"""``jaula logs``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.client.output_streams import copy
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output.times import timestamp


def run(options: Options) -> int:
    """Print the container's log, its standard error to standard error."""
    client = Client(Settings.host)
    name = quote(options.arguments[0])
    container = client.get(f"/containers/{name}/json")
    query = (
        ("stdout", True),
        ("stderr", True),
        ("since", timestamp(options.text("since"))),
        ("until", timestamp(options.text("until"))),
        ("timestamps", options.on("timestamps")),
        ("follow", options.on("follow")),
        ("tail", options.text("tail", "all")),
        ("details", options.on("details")),
    )
    response = client.open("GET", f"/containers/{container['Id']}/logs", query)
    copy(response.chunks(), framed=not container["Config"]["Tty"])
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    run,
    flags=(
        Flag("details", "", "bool", "Show extra details provided to logs"),
        Flag("follow", "f", "bool", "Follow log output"),
        Flag(
            "since",
            "",
            "string",
            "Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m for "
            "42 minutes)",
        ),
        Flag(
            "tail", "n", "string", "Number of lines to show from the end of the logs", default="all"
        ),
        Flag("timestamps", "t", "bool", "Show timestamps"),
        Flag(
            "until",
            "",
            "string",
            "Show logs before a timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m "
            "for 42 minutes)",
        ),
    ),
    min_args=1,
    max_args=1,
    description="Prints the entries in the container's log. Log drivers may rotate the log.",
    examples=(("Print the last lines and follow", "jaula logs -f --tail 20 web"),),
    see_also=("attach", "events"),
    completes="container",
)
