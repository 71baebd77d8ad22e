"""``jaula tree``: the host's process tree with the namespaces of each process."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Print the tree of the given containers with their ancestors, or of the whole host."""
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
            document = client.get(f"/containers/{quote(name)}/json")
            if not document["State"]["Pid"]:
                raise CliError(f"container {name} is not running")
            roots.append(int(document["State"]["Pid"]))
    print(pstree.render(roots))
    return 0


COMMAND = Command(
    "[CONTAINER|PID...]",
    "Display the process tree with the namespaces that change at each process",
    run,
    description=(
        "Like pstree -S: after each process come the namespaces in which it differs from its "
        "parent. Given containers are shown with their ancestors."
    ),
    examples=(("Show a container from the shim to its processes", "jaula tree web"),),
    see_also=("top", "verify", "inspect"),
    completes="container",
)
