"""``jaula checkpoint ls``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Options
from jaula.cli.main import Settings
from jaula.features.checkpoint.cli import request as checkpoint


def run(options: Options) -> int:
    """Print the names of the checkpoints."""
    path = f"/containers/{quote(options.arguments[0])}/checkpoints"
    print("CHECKPOINT NAME")
    for item in Client(Settings.host).get(path, checkpoint.query(options)) or []:
        print(item["Name"])
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "List checkpoints for a container",
    run,
    flags=(checkpoint.DIRECTORY,),
    min_args=1,
    max_args=1,
    description="Prints the names of the checkpoints of one container.",
    examples=(("List those of a container", "jaula checkpoint ls web"),),
    see_also=("checkpoint create", "checkpoint inspect", "checkpoint rm"),
    completes="container",
)
