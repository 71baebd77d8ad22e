"""``jaula checkpoint import``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.commands.load import chunks
from jaula.cli.errors import CliError
from jaula.cli.main import Settings
from jaula.cli.output.progress import Progress, file_size
from jaula.spec.fast_json import decode_lines


def run(options: Options) -> int:
    """Send an archive to the engine and print the container that it is for."""
    path = options.text("input")
    if not path and sys.stdin.isatty():
        raise CliError("requested import from stdin, but stdin is empty")
    query = tuple((name, options.text(name)) for name in ("name", "network") if options.text(name))
    client = Client(Settings.host)
    with open(path or 0, "rb", buffering=0, closefd=bool(path)) as archive:
        total = file_size(archive.fileno())
        with Progress("import", total=total) as progress:
            response = client.upload("/jaula/checkpoints", query, progress.counted(chunks(archive)))
    for document in decode_lines(response.chunks()):
        for warning in document["Warnings"]:
            sys.stderr.write(f"WARNING: {warning}\n")
        verb = "Created" if document["Created"] else "Found"
        print(f"{verb} container {document['Id']}")
        print(f"Imported checkpoint {document['Checkpoint']}")
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Import a checkpoint from a tar archive or STDIN",
    run,
    flags=(
        Flag(
            "input", "i", "string", "Read from tar archive file, instead of STDIN", completes="file"
        ),
        Flag("name", "", "string", "Create another container with this name, as clone does"),
        Flag(
            "network",
            "",
            "string",
            "Create another container, on this network",
            metavar="network",
            completes="network",
        ),
    ),
    max_args=0,
    description=(
        "If the container of the checkpoint does not exist on this engine, it is created from the "
        "archive, which must have its files then. Its image must be here. The archive must be "
        "written by this engine, or signed by a key that the policy names in [checkpoints]. "
        "Everything else is refused before it is read."
    ),
    examples=(
        (
            "Move a container to another host",
            "jaula checkpoint export -k team.key web warm | ssh host jaula checkpoint import",
        ),
        ("Continue it there", "jaula start --checkpoint warm web"),
    ),
    see_also=("checkpoint export", "clone", "trust policy"),
)
