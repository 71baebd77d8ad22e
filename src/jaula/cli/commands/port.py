"""``jaula port``."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Print the published ports of a container."""
    name, *requested = options.arguments
    document = Client(Settings.host).get(f"/containers/{quote(name)}/json")
    ports = document["NetworkSettings"].get("Ports") or {}
    if requested:
        port = requested[0] if "/" in requested[0] else requested[0] + "/tcp"
        bindings = ports.get(port)
        if not bindings:
            raise CliError(f"Error: No public port '{requested[0]}' published for {name}")
        for binding in bindings:
            print(_address(binding))
        return 0
    for port in sorted(ports, key=lambda port: (int(port.partition("/")[0]), port)):
        for binding in ports[port] or ():
            print(f"{port} -> {_address(binding)}")
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


COMMAND = Command(
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    run,
    min_args=1,
    max_args=2,
    description="Prints one line for each published port of the container, or of the given port.",
    examples=(("Print the address of port 80", "jaula port web 80"),),
    see_also=("run", "ps"),
    completes="container",
)
