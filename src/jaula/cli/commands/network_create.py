"""``jaula network create``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers.options import pairs
from jaula.cli.errors import EngineError, UsageError
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_CONFLICT = 409


def run(options: Options) -> int:
    """Create the network and print its id."""
    body: dict[str, Any] = {
        "Name": options.arguments[0],
        "CheckDuplicate": True,
        "Driver": options.text("driver", "bridge"),
        "Scope": options.text("scope"),
        "Ingress": options.on("ingress"),
        "ConfigOnly": options.on("config-only"),
        "ConfigFrom": {"Network": options.text("config-from")},
        **{
            name: options.on(flag)
            for flag, name in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6"))
            if options.is_set(flag)
        },
        "Internal": options.on("internal"),
        "Attachable": options.on("attachable"),
        "Options": pairs(options.texts("opt"), "opt"),
        "Labels": pairs(options.texts("label"), "label"),
        "IPAM": {
            "Driver": options.text("ipam-driver", "default"),
            "Options": pairs(options.texts("ipam-opt"), "ipam-opt"),
            "Config": _pools(options),
        },
    }
    client = Client(Settings.host)
    try:
        print(client.document("POST", "/networks/create", (), body)["Id"])
    except EngineError as error:
        if error.code != _CONFLICT or not options.on("ignore"):
            raise
        print(client.get(f"/networks/{quote(options.arguments[0])}")["Id"])
    return 0


def _pools(options: Options) -> list[dict[str, Any]]:
    """Return one pool per subnet. Other options apply to the subnet of the same address family.

    :raises UsageError: when an option has no subnet.
    """
    pools: list[dict[str, Any]] = [{"Subnet": subnet} for subnet in options.texts("subnet")]
    for flag, name in (("gateway", "Gateway"), ("ip-range", "IPRange")):
        for value in options.texts(flag):
            _pool_for(pools, value, flag)[name] = value
    for word in options.texts("aux-address"):
        key, equals, address = word.partition("=")
        if not equals:
            raise UsageError(f"invalid --aux-address {word!r}: must be NAME=ADDRESS", status=1)
        _pool_for(pools, address, "aux-address").setdefault("AuxiliaryAddresses", {})[key] = address
    return pools


def _pool_for(pools: list[dict[str, Any]], address: str, flag: str) -> dict[str, Any]:
    for pool in pools:
        if (":" in pool["Subnet"]) == (":" in address):
            return pool
    raise UsageError(f"every --{flag} must have a corresponding --subnet", status=1)


COMMAND = Command(
    "[OPTIONS] NETWORK",
    "Create a network",
    run,
    flags=(
        Flag(
            "attachable",
            "",
            "bool",
            "Enable manual container attachment (no effect: always possible)",
        ),
        Flag(
            "aux-address",
            "",
            "list",
            "Auxiliary IPv4 or IPv6 addresses used by Network driver (name=address)",
        ),
        Flag("config-from", "", "string", "The network from which to copy the configuration"),
        Flag("config-only", "", "bool", "Create a configuration only network"),
        Flag(
            "driver",
            "d",
            "string",
            "Driver to manage the Network",
            default="bridge",
            completes=("bridge", "macvlan", "ipvlan"),
        ),
        Flag("gateway", "", "list", "IPv4 or IPv6 Gateway for the master subnet"),
        Flag("ignore", "", "bool", "Do not fail if a network with this name exists"),
        Flag("ingress", "", "bool", "Create swarm routing-mesh network (refused)"),
        Flag("internal", "", "bool", "Restrict external access to the network"),
        Flag("ip-range", "", "list", "Allocate container ip from a sub-range"),
        Flag("ipam-driver", "", "string", "IP Address Management Driver", default="default"),
        Flag(
            "ipam-opt",
            "",
            "list",
            "Set IPAM driver specific options (no effect: the default driver has none)",
        ),
        Flag("ipv4", "", "bool", "Enable or disable IPv4 address assignment", default="true"),
        Flag("ipv6", "", "bool", "Enable or disable IPv6 address assignment"),
        Flag("label", "", "list", "Set metadata on a network (key=value)"),
        Flag("opt", "o", "list", "Set driver specific options (key=value)"),
        Flag("scope", "", "string", "Control the network's scope (local; swarm is refused)"),
        Flag("subnet", "", "list", "Subnet in CIDR format that represents a network segment"),
    ),
    min_args=1,
    max_args=1,
    description="Containers of a network find each other by name and cannot reach other networks.",
    examples=(
        ("Create a network", "jaula network create shop"),
        ("Restrict external access", "jaula network create --internal vault"),
        (
            "Connect to the link of a host interface",
            "jaula network create -d macvlan -o parent=eth0 --subnet 192.0.2.0/24 wire",
        ),
        (
            "Create a configuration only network",
            "jaula network create --config-only --subnet 10.51.0.0/24 plan",
        ),
        ("Use its configuration", "jaula network create --config-from plan shop"),
        ("Choose the subnet", "jaula network create --subnet 10.50.0.0/24 lab"),
        ("Use IPv6 only", "jaula network create --ipv4=false --ipv6 six"),
    ),
    see_also=("network ls", "network connect", "run"),
)
