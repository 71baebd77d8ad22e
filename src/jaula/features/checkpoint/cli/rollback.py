"""``jaula rollback``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress
from jaula.features.checkpoint.cli import checkpoint_request


def run(options: Options) -> int:
    """Put the container back and print its name."""
    container, name = options.arguments
    path = f"/jaula/containers/{quote(container)}/rollback/{quote(name)}"
    client = Client(Settings.host)
    with Progress("rollback"):
        client.request("POST", path, checkpoint_request.query(options))
    print(container)
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER NAME",
    "Put the processes, the files and the volumes of a container back to a snapshot",
    run,
    flags=(checkpoint_request.DIRECTORY,),
    min_args=2,
    max_args=2,
    description=(
        "Ends the container if it runs, puts the files of its root and its volumes back, and "
        "continues its processes from the snapshot. Everything that was written since is lost. If "
        "the engine is killed meanwhile, the container is as before, or the next engine completes "
        "the rollback."
    ),
    examples=(("Undo a migration", "jaula rollback db before-migration"),),
    see_also=("snapshot", "clone", "checkpoint inspect"),
    completes="container",
)
