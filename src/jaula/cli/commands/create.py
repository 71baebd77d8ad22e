"""``jaula create``: everything of ``run`` but the start."""

from __future__ import annotations

from jaula.cli import container_flags, container_options
from jaula.cli.client import Client
from jaula.cli.creation import create
from jaula.cli.flags import Command, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Create the container and print its id."""
    print(create(Client(Settings.host), options, container_options.document(options)))
    return 0


COMMAND = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    run,
    flags=container_flags.FLAGS,
    least=1,
    interspersed=False,
    description=(
        "Makes a container from IMAGE without starting it and prints its ID. The flags are those "
        "of run."
    ),
    examples=(("A container for later", "jaula create --name job busybox sleep 60"),),
    see_also=("run", "start", "rm"),
    completes="image",
)
