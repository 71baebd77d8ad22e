"""``jaula create``: as ``run``, but the container is not started."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Options
from jaula.cli.containers import flags
from jaula.cli.containers import options as container_options
from jaula.cli.containers.create import create
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Create the container and print its id."""
    print(create(Client(Settings.host), options, container_options.document(options)))
    return 0


COMMAND = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    run,
    flags=flags.FLAGS,
    min_args=1,
    interspersed=False,
    description=(
        "Creates a container from IMAGE without starting it and prints its ID. The flags are "
        "those of run."
    ),
    examples=(("Create a container", "jaula create --name job busybox sleep 60"),),
    see_also=("run", "start", "rm"),
    completes="image",
)
