"""``jaula rm``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.for_each import each
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Remove the containers."""
    client = Client(Settings.host)
    query = (
        ("force", options.on("force")),
        ("link", options.on("link")),
        ("v", options.on("volumes")),
    )
    return each(
        options.arguments,
        lambda name: client.request("DELETE", f"/containers/{quote(name.strip('/'), '/')}", query),
    )


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Remove one or more containers",
    run,
    flags=(
        Flag("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
        Flag(
            "link",
            "l",
            "bool",
            "Remove the specified link (CONTAINER/ALIAS); no container is removed",
        ),
        Flag("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
    ),
    min_args=1,
    description="Removes the containers with their writable layers; named volumes are kept.",
    examples=(("Remove a running container", "jaula rm -f web"),),
    see_also=("stop", "container prune"),
    completes="container",
)
