"""``jaula snapshot``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import UsageError
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Create the checkpoint and print its name."""
    container, name = options.arguments
    if options.on("tcp-established") and options.on("tcp-close"):
        raise UsageError("--tcp-established and --tcp-close exclude each other", status=1)
    body = {
        "CheckpointID": name,
        "Exit": False,
        "TCPEstablished": options.on("tcp-established"),
        "TCPClose": options.on("tcp-close"),
        "EndExecs": options.on("end-execs"),
        "Files": True,
    }
    Client(Settings.host).document("POST", f"/containers/{quote(container)}/checkpoints", (), body)
    print(name)
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER NAME",
    "Save the processes, the files and the volumes of a running container",
    run,
    flags=(
        Flag("end-execs", "", "bool", "End exec'd processes, which no checkpoint can hold"),
        Flag("tcp-close", "", "bool", "Save established TCP connections as closed ones"),
        Flag("tcp-established", "", "bool", "Save established TCP connections"),
    ),
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
