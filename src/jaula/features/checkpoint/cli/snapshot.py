"""``jaula snapshot``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Options
from jaula.cli.main import Settings
from jaula.features.checkpoint.cli import checkpoint_request


def run(options: Options) -> int:
    """Create the checkpoint and print its name."""
    checkpoint_request.create(Client(Settings.host), options, {"Exit": False, "Files": True})
    print(options.arguments[1])
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER NAME",
    "Save the processes, the files and the volumes of a running container",
    run,
    flags=checkpoint_request.FLAGS,
    min_args=2,
    max_args=2,
    description=(
        "Creates a checkpoint that holds the changed files of the root and the volumes, and leaves "
        "the container running. It is the same as jaula checkpoint create --leave-running "
        "--with-files; jaula checkpoint ls, inspect and rm are for snapshots too."
    ),
    examples=(
        ("Save a database before a migration of its schema", "jaula snapshot db before-migration"),
        ("Put it back", "jaula rollback db before-migration"),
    ),
    see_also=("rollback", "clone", "checkpoint create"),
    completes="container",
)
