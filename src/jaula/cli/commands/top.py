"""``jaula top``."""

from __future__ import annotations

import sys

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.main import Settings
from jaula.cli.output.text_table import aligned


def run(options: Options) -> int:
    """Print the container's processes as ps(1) on the host shows them."""
    name, *words = options.arguments
    query = (("ps_args", " ".join(words)),)
    processes = Client(Settings.host).get(f"/containers/{quote(name)}/top", query)
    rows = ["\t".join(row) for row in [processes["Titles"], *(processes["Processes"] or ())]]
    sys.stdout.write(aligned(rows, min_width=20))
    return 0


COMMAND = Command(
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    run,
    min_args=1,
    interspersed=False,
    description="PIDs and users are those of the host.",
    examples=(("Select columns", "jaula top web -o pid,user,args"),),
    see_also=("stats", "exec", "tree"),
    completes="container",
)
