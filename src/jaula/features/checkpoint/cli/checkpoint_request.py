"""The flags and the request of the commands that create a checkpoint."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Flag, Options
from jaula.cli.output.progress_line import Progress

DIRECTORY = Flag("checkpoint-dir", "", "string", "Use a custom checkpoint storage directory")
FLAGS = (
    DIRECTORY,
    Flag("end-execs", "", "bool", "End exec'd processes, which no checkpoint can hold"),
    Flag("tcp-close", "", "bool", "Save established TCP connections as closed ones"),
    Flag("tcp-established", "", "bool", "Save established TCP connections"),
)


def query(options: Options) -> tuple[tuple[str, str], ...]:
    """Return the query of a request about a checkpoint: its directory, if it has one."""
    directory = options.text(DIRECTORY.name)
    return (("dir", directory),) if directory else ()


def create(client: Client, options: Options, members: dict[str, object]) -> None:
    """Create the checkpoint of the arguments: a container, and a name.

    ``members`` are those of the request that are not from :data:`FLAGS`.

    :raises UsageError: when connections are to be both saved and closed.
    """
    container, name = options.arguments
    if options.on("tcp-established") and options.on("tcp-close"):
        raise UsageError("--tcp-established and --tcp-close exclude each other", status=1)
    body = {
        "CheckpointID": name,
        "CheckpointDir": options.text(DIRECTORY.name),
        "TCPEstablished": options.on("tcp-established"),
        "TCPClose": options.on("tcp-close"),
        "EndExecs": options.on("end-execs"),
        **members,
    }
    with Progress("checkpoint"):
        client.document("POST", f"/containers/{quote(container)}/checkpoints", (), body)
