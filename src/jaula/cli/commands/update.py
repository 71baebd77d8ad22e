"""``jaula update``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.containers import create_body as container_options
from jaula.cli.containers.flags import FLAGS, UPDATE_NAMES
from jaula.cli.for_each import each
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Update the limits of the containers."""
    body = container_options.update(options)
    if not body:
        raise UsageError("you must provide one or more flags when using this command", status=1)
    client = Client(Settings.host)

    def update(name: str) -> None:
        answer = client.document("POST", f"/containers/{quote(name)}/update", (), body)
        for warning in (answer or {}).get("Warnings") or ():
            sys.stderr.write(f"WARNING: {warning}\n")

    return each(options.arguments, update)


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    run,
    flags=tuple(flag for flag in FLAGS if flag.name in UPDATE_NAMES),
    min_args=1,
    description="The limits of a running container change at once.",
    examples=(("Limit a container to half a CPU", "jaula update --cpus 0.5 web"),),
    see_also=("run", "stats"),
    completes="container",
)
