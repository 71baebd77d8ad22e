"""``jaula network connect``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers import network_option
from jaula.cli.containers.options import pairs
from jaula.cli.errors import UsageError
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Connect a container to a network."""
    network, container = options.arguments
    settings = {
        "alias": options.texts("alias"),
        "ip": options.text("ip"),
        "ip6": options.text("ip6"),
        "link": options.texts("link"),
        "driver-opt": pairs(options.texts("driver-opt"), "driver-opt"),
        "gw-priority": options.number("gw-priority"),
    }
    if options.is_set("link-local-ip"):
        raise UsageError("link-local addresses are not supported; use --ip or --ip6")
    body = {"Container": container, "EndpointConfig": network_option.endpoint(settings)}
    Client(Settings.host).document("POST", f"/networks/{quote(network)}/connect", (), body)
    return 0


COMMAND = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    run,
    flags=(
        Flag("alias", "", "list", "Add network-scoped alias for the container"),
        Flag(
            "driver-opt", "", "list", "Driver options for the network (key=value); stored and shown"
        ),
        Flag(
            "gw-priority",
            "",
            "int",
            "Highest gw-priority provides the default gateway (positive or negative)",
        ),
        Flag("ip", "", "string", "IPv4 address (e.g., 172.30.100.104)"),
        Flag("ip6", "", "string", "IPv6 address (e.g., 2001:db8::33)"),
        Flag("link", "", "list", "Add link to another container (name[:alias])"),
        Flag("link-local-ip", "", "list", "Add a link-local address for the container (refused)"),
    ),
    min_args=2,
    max_args=2,
    description=(
        "A running container gets an additional interface. The connection is stored for later "
        "starts. The default routes and published ports move at once if the network precedes "
        "the present one."
    ),
    examples=(
        ("Connect to a second network", "jaula network connect vault web"),
        ("Move the default route", "jaula network connect --gw-priority 1 shop web"),
    ),
    see_also=("network disconnect", "network create"),
    completes="network",
)
