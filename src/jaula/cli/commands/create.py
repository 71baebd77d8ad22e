"""``jaula create``: as ``run``, but the container is not started."""

from __future__ import annotations

from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Options
from jaula.cli.containers import create_body as container_options
from jaula.cli.containers import feature_flag, flags
from jaula.cli.containers.create_container import create
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Create the container and print its id; with ``--record``, start its recorder."""
    client = Client(Settings.host)
    body = container_options.document(options)
    if not options.is_set("record"):
        print(create(client, options, body))
        return 0
    record_process = feature_flag.module("record")
    record_process.check(client, options)
    listener = record_process.listen(options, body)
    container = create(client, options, body)
    record_process.start(client, container, options, listener).print_started()
    print(container)
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
