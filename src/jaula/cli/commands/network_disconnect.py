"""``jaula network disconnect``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Disconnect a container from a network."""
    network, container = options.arguments
    body = {"Container": container, "Force": options.on("force")}
    Client(Settings.host).document("POST", f"/networks/{quote(network)}/disconnect", (), body)
    return 0


COMMAND = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    run,
    flags=(
        Flag("force", "f", "bool", "Force the container to disconnect from a network (no effect)"),
    ),
    min_args=2,
    max_args=2,
    description="Published ports move to another network of the container, if there is one.",
    examples=(("Disconnect from a network", "jaula network disconnect vault web"),),
    see_also=("network connect",),
    completes="network",
)
