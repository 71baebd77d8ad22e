"""The commands of networks: ``jaula network create``, ``connect``, ``ls`` and others."""

from __future__ import annotations

from jaula.cli.cli_errors import EngineError, UsageError
from jaula.cli.client.api_client import Client, filters, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import network_option
from jaula.cli.containers.create_body import pairs
from jaula.cli.for_each import each
from jaula.cli.images import prune_prompt
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output, list_output
from jaula.cli.output.list_output import short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOT_FOUND = 404
_CONFLICT = 409


def connect(options: Options) -> int:
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


CONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    connect,
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


def create(options: Options) -> int:
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


CREATE = Command(
    "[OPTIONS] NETWORK",
    "Create a network",
    create,
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


def disconnect(options: Options) -> int:
    """Disconnect a container from a network."""
    network, container = options.arguments
    body = {"Container": container, "Force": options.on("force")}
    Client(Settings.host).document("POST", f"/networks/{quote(network)}/disconnect", (), body)
    return 0


DISCONNECT = Command(
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    disconnect,
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


def inspect(options: Options) -> int:
    """Print the documents of the networks."""
    client = Client(Settings.host)
    return inspect_output.show(
        options.arguments,
        options.text("format"),
        lambda name: client.get(f"/networks/{quote(name)}"),
    )


INSPECT = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    inspect,
    flags=(
        inspect_output.FORMAT,
        Flag(
            "verbose",
            "v",
            "bool",
            "Verbose output for diagnostics (no effect: there are no services)",
        ),
    ),
    min_args=1,
    description="Prints Docker's document of each network as JSON, or the output of a template.",
    examples=(("Inspect a network", "jaula network inspect bridge"),),
    see_also=("inspect", "network ls"),
    completes="network",
)


def ls(options: Options) -> int:
    """List networks by name."""
    query = (("filters", filters(options.texts("filter"))),)
    networks = Client(Settings.host).get("/networks", query) or []
    networks.sort(key=lambda network: network["Name"])
    no_trunc = options.on("no-trunc")
    columns: dict[str, list_output.Column] = {
        "ID": ("NETWORK ID", lambda item: short_id(item["Id"], no_trunc)),
        "Name": ("NAME", lambda item: item["Name"]),
        "Driver": ("DRIVER", lambda item: item["Driver"]),
        "Scope": ("SCOPE", lambda item: item["Scope"]),
        "IPv6": ("IPV6", lambda item: "true" if item.get("EnableIPv6") else "false"),
        "Internal": ("INTERNAL", lambda item: "true" if item.get("Internal") else "false"),
        "Labels": (
            "LABELS",
            lambda item: ",".join(
                f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())
            ),
        ),
        "CreatedAt": ("CREATED AT", lambda item: item.get("Created", "")),
    }
    output_format = options.text("format")
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    list_output.show(
        networks, columns, "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", output_format
    )
    return 0


LS = Command(
    "[OPTIONS]",
    "List networks",
    ls,
    flags=(
        Flag("filter", "f", "list", "Provide filter values (driver=bridge, name=b)"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("no-trunc", "", "bool", "Do not truncate the output"),
        Flag("quiet", "q", "bool", "Only display network IDs"),
    ),
    max_args=0,
    description="Lists the networks that the flag --network of run accepts.",
    examples=(("List networks", "jaula network ls"),),
    see_also=("network create", "network inspect", "run"),
)


def prune(options: Options) -> int:
    """Prompt, remove the networks and print the result."""
    warning = "This will remove all custom networks not used by at least one container."
    return prune_prompt.prune(options, "networks", warning)


PRUNE = Command(
    "[OPTIONS]",
    "Remove all unused networks",
    prune,
    flags=(
        prune_prompt.FILTER,
        prune_prompt.FORCE,
    ),
    max_args=0,
    description="Removes the networks that no running container is connected to.",
    examples=(("Do not prompt", "jaula network prune -f"),),
    see_also=("network rm", "system prune"),
)


def rm(options: Options) -> int:
    """Remove the networks."""
    client = Client(Settings.host)

    def remove(name: str) -> None:
        try:
            client.request("DELETE", f"/networks/{quote(name)}")
        except EngineError as error:
            if error.code != _NOT_FOUND or not options.on("force"):
                raise

    return each(options.arguments, remove)


RM = Command(
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    rm,
    flags=(Flag("force", "f", "bool", "Do not error if the network does not exist"),),
    min_args=1,
    description="A network that a running container is connected to is not removed.",
    examples=(("Remove a network", "jaula network rm shop"),),
    see_also=("network ls", "network prune"),
    completes="network",
)
