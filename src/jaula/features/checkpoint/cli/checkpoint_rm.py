"""``jaula checkpoint rm``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Options
from jaula.cli.main import Settings
from jaula.features.checkpoint.cli import request as checkpoint


def run(options: Options) -> int:
    """Remove the checkpoint."""
    container, name = options.arguments
    path = f"/containers/{quote(container)}/checkpoints/{quote(name)}"
    Client(Settings.host).request("DELETE", path, checkpoint.query(options))
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER CHECKPOINT",
    "Remove a checkpoint",
    run,
    flags=(checkpoint.DIRECTORY,),
    min_args=2,
    max_args=2,
    description="Removes one checkpoint. The removal of a container removes all of its own.",
    examples=(("Remove one", "jaula checkpoint rm web before-reboot"),),
    see_also=("checkpoint create", "checkpoint ls"),
    completes="container",
)
