"""``jaula network rm``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import EngineError
from jaula.cli.for_each import each
from jaula.cli.main import Settings

_NOT_FOUND = 404


def run(options: Options) -> int:
    """Remove the networks."""
    client = Client(Settings.host)

    def remove(name: str) -> None:
        try:
            client.request("DELETE", f"/networks/{quote(name)}")
        except EngineError as error:
            if error.code != _NOT_FOUND or not options.on("force"):
                raise

    return each(options.arguments, remove)


COMMAND = Command(
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    run,
    flags=(Flag("force", "f", "bool", "Do not error if the network does not exist"),),
    min_args=1,
    description="A network that a running container is connected to is not removed.",
    examples=(("Remove a network", "jaula network rm shop"),),
    see_also=("network ls", "network prune"),
    completes="network",
)
