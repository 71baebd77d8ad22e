"""``jaula checkpoint inspect``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Options
from jaula.cli.main import Settings
from jaula.cli.output import inspect
from jaula.features.checkpoint.cli import request as checkpoint


def run(options: Options) -> int:
    """Print the facts about the checkpoints of one container."""
    container, *names = options.arguments
    client = Client(Settings.host)
    return inspect.show(
        names,
        options.text("format"),
        lambda name: client.get(
            f"/jaula/containers/{quote(container)}/checkpoints/{quote(name)}",
            checkpoint.query(options),
        ),
    )


COMMAND = Command(
    "[OPTIONS] CONTAINER CHECKPOINT [CHECKPOINT...]",
    "Display detailed information on one or more checkpoints",
    run,
    flags=(checkpoint.DIRECTORY, inspect.FORMAT),
    min_args=2,
    description=(
        "Prints size, addresses and options of a checkpoint, and whether the container can be "
        "started from it: its files must be those that this engine has written."
    ),
    examples=(
        (
            "Check that a checkpoint is unchanged",
            "jaula checkpoint inspect -f '{{.Usable}} {{.Problem}}' web before-reboot",
        ),
    ),
    see_also=("checkpoint create", "checkpoint ls"),
    completes="container",
)
