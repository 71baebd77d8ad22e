"""``jaula export``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import archive_output
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Write the container's file system as a tar archive."""
    name = options.arguments[0]
    response = Client(Settings.host).open("GET", f"/containers/{quote(name)}/export")
    archive_output.write(response.chunks(), options.text("output"), "save", "export")
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    run,
    flags=(Flag("output", "o", "string", "Write to a file, instead of STDOUT", completes="file"),),
    min_args=1,
    max_args=1,
    description=(
        "The archive contains the image's files with the container's changes, without volumes."
    ),
    examples=(("List the files of a container", "jaula export web | tar t"),),
    see_also=("import", "save", "diff"),
    completes="container",
)
