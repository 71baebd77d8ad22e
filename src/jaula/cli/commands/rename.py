"""``jaula rename``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Rename the container."""
    name, new = options.arguments
    query = (("name", new),)
    Client(Settings.host).request("POST", f"/containers/{quote(name)}/rename", query)
    return 0


COMMAND = Command(
    "CONTAINER NEW_NAME",
    "Rename a container",
    run,
    min_args=2,
    max_args=2,
    description="Works on running and stopped containers; nothing else changes.",
    examples=(("Rename a container", "jaula rename web web-old"),),
    see_also=("ps", "inspect"),
    completes="container",
)
