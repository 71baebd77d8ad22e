"""``jaula network create``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers.options import pairs
from jaula.cli.errors import UsageError
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
        "EnableIPv6": options.on("ipv6"),
        "Internal": options.on("internal"),
        "Attachable": options.on("attachable"),
        "Options": pairs(options.texts("opt"), "opt"),
        "Labels": pairs(options.texts("label"), "label"),
    }
    pools, driver = _pools(options), options.text("ipam-driver", "default")
    if pools or options.is_set("ipam-driver") or options.is_set("ipam-opt"):
        choices = pairs(options.texts("ipam-opt"), "ipam-opt")
        body["IPAM"] = {"Driver": driver, "Options": choices, "Config": pools}
    print(Client(Settings.host).document("POST", "/networks/create", (), body)["Id"])
    return 0


def _pools(options: Options) -> list[dict[str, Any]]:
    """One pool for each subnet; what else was given goes to the subnet of its family."""
    pools: list[dict[str, Any]] = [{"Subnet": subnet} for subnet in options.texts("subnet")]
    for flag, name in (("gateway", "Gateway"), ("ip-range", "IPRange")):
        for value in options.texts(flag):
            _of(pools, value, flag)[name] = value
    for word in options.texts("aux-address"):
        key, equals, address = word.partition("=")
        if not equals:
            raise UsageError(f"invalid --aux-address {word!r}: write NAME=ADDRESS", status=1)
        _of(pools, address, "aux-address").setdefault("AuxiliaryAddresses", {})[key] = address
    return pools


def _of(pools: list[dict[str, Any]], address: str, flag: str) -> dict[str, Any]:
    for pool in pools:
        if (":" in pool["Subnet"]) == (":" in address):
            return pool
    raise UsageError(f"every --{flag} must have a corresponding --subnet", status=1)


COMMAND = Command(
    "[OPTIONS] NETWORK",
    "Create a network",
    run,
    flags=(
        Flag("attachable", "", "bool", "Kept for clients; every container may be connected"),
        Flag("aux-address", "", "list", "Address that no container gets (name=address)"),
        Flag("config-from", "", "string", "Network of settings to make this one from"),
        Flag("config-only", "", "bool", "Settings for other networks, and no network"),
        Flag(
            "driver",
            "d",
            "string",
            "Driver",
            default="bridge",
            completes=("bridge", "macvlan", "ipvlan"),
        ),
        Flag("gateway", "", "list", "Address of the host in the subnet"),
        Flag("ingress", "", "bool", "Routing mesh of a swarm (refused)"),
        Flag("internal", "", "bool", "No way out of the network, and none in"),
        Flag("ip-range", "", "list", "Part of the subnet that addresses are taken from"),
        Flag("ipam-driver", "", "string", "Where addresses come from", default="default"),
        Flag("ipam-opt", "", "list", "Kept for clients; the default driver has no options"),
        Flag("ipv6", "", "bool", "IPv6 too"),
        Flag("label", "", "list", "Set metadata (key=value)"),
        Flag("opt", "o", "list", "Option of the driver (key=value)"),
        Flag("scope", "", "string", "local; swarm is refused"),
        Flag("subnet", "", "list", "Subnet in CIDR form"),
    ),
    min_args=1,
    max_args=1,
    description="Containers of a network find each other by name; other networks are out of reach.",
    examples=(
        ("A network, and a container on it", "jaula network create shop"),
        ("Without a way out", "jaula network create --internal vault"),
        (
            "On the wire of one of the host's interfaces",
            "jaula network create -d macvlan -o parent=eth0 --subnet 192.0.2.0/24 wire",
        ),
        ("Settings alone", "jaula network create --config-only --subnet 10.51.0.0/24 plan"),
        ("A network with these settings", "jaula network create --config-from plan shop"),
        ("With a subnet", "jaula network create --subnet 10.50.0.0/24 lab"),
    ),
    see_also=("network ls", "network connect", "run"),
)
