"""``jaula checkpoint ls``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Print the names of the checkpoints."""
    directory = options.text("checkpoint-dir")
    query = (("dir", directory),) if directory else ()
    path = f"/containers/{quote(options.arguments[0])}/checkpoints"
    print("CHECKPOINT NAME")
    for item in Client(Settings.host).get(path, query) or []:
        print(item["Name"])
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "List checkpoints for a container",
    run,
    flags=(Flag("checkpoint-dir", "", "string", "Use a custom checkpoint storage directory"),),
    min_args=1,
    max_args=1,
    description="Prints the names of the checkpoints of one container.",
    examples=(("List those of a container", "jaula checkpoint ls web"),),
    see_also=("checkpoint create", "checkpoint inspect", "checkpoint rm"),
    completes="container",
)
