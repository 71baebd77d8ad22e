"""``jaula tree``: processes of the host and the namespaces that change on the way down."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Draw the tree above and below the containers named, or of the whole host."""
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.audit import pstree

    roots = []
    if options.arguments:
        client = Client(Settings.host)
        for name in options.arguments:
            if name.isdigit() and len(name) < 8:
                roots.append(int(name))
                continue
            found = client.get(f"/containers/{quote(name)}/json")
            if not found["State"]["Pid"]:
                raise CliError(f"container {name} does not run")
            roots.append(int(found["State"]["Pid"]))
    print(pstree.render(roots))
    return 0


COMMAND = Command(
    "[CONTAINER|PID...]",
    "Draw the process tree with the namespaces that change at each process",
    run,
    description=(
        "In the manner of pstree -S: behind a process stand the namespaces in which it differs "
        "from its parent. Named containers are drawn with their ancestors."
    ),
    examples=(("From the shim to the program", "jaula tree web"),),
    see_also=("top", "verify", "inspect"),
    completes="container",
)
