"""``jaula rm``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import cidfile
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
    files = cidfile.files(options)
    status = each(
        cidfile.containers(options, files),
        lambda name: client.request("DELETE", f"/containers/{quote(name.strip('/'), '/')}", query),
        ignored=cidfile.MISSING if options.on("ignore") else 0,
    )
    if not status:
        for file in files:
            file.remove()
    return status


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
        *cidfile.FLAGS,
    ),
    description=(
        "Removes the containers with their writable layers; named volumes are kept. A file of "
        "--cidfile is removed with its container."
    ),
    examples=(("Remove a running container", "jaula rm -f web"),),
    see_also=("stop", "container prune"),
    completes="container",
)
