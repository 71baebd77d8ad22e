"""``jaula port``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Print where the container's ports are reached."""
    name, *wanted = options.arguments
    found = Client(Settings.host).get(f"/containers/{quote(name)}/json")
    ports = found["NetworkSettings"].get("Ports") or {}
    if wanted:
        port = wanted[0] if "/" in wanted[0] else wanted[0] + "/tcp"
        bindings = ports.get(port)
        if not bindings:
            raise CliError(f"Error: No public port '{wanted[0]}' published for {name}")
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
    description="One line for each published port of the container, or of the port named.",
    examples=(("Where the web server is reached", "jaula port web 80"),),
    see_also=("run", "ps"),
    completes="container",
)
