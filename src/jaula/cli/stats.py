"""``jaula stats``."""

from __future__ import annotations

from time import sleep

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers.stats_samples import ContainerUsage, Sampler
from jaula.cli.main import Settings
from jaula.cli.output import list_output
from jaula.cli.output.list_output import short_id
from jaula.cli.output.screen import Screen
from jaula.spec import units

DEFAULT = (
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}"
    "\t{{.PIDs}}"
)
INTERVAL = 1.0  # seconds between two samples


def run(options: Options) -> int:
    """Show resource usage, updated every second, or once."""
    names = [quote(name) for name in options.arguments]
    sampler = Sampler(Client(Settings.host), names, everything=options.on("all"))
    show(sampler, columns(no_trunc=options.on("no-trunc")), DEFAULT, options)
    return 0


def show(
    sampler: Sampler, shown: dict[str, list_output.Column], default: str, options: Options
) -> None:
    """Print the samples of containers, as ``--no-stream`` and ``--format`` ask for."""
    output_format = options.text("format")
    sampler.take()
    if options.on("no-stream"):
        sleep(INTERVAL)
        list_output.show(sampler.take(), shown, default, output_format)
        return
    with Screen() as screen:
        while True:
            sleep(INTERVAL)
            screen.draw(list_output.text(sampler.take(), shown, default, output_format))


def columns(*, no_trunc: bool) -> dict[str, list_output.Column]:
    """Return the columns; ``no_trunc`` is the flag ``--no-trunc``."""

    def block(usage: ContainerUsage) -> str:
        return f"{units.human_size(usage.read, 3)} / {units.human_size(usage.written, 3)}"

    def network(usage: ContainerUsage) -> str:
        return f"{units.human_size(usage.received, 3)} / {units.human_size(usage.sent, 3)}"

    def memory(usage: ContainerUsage) -> str:
        return f"{units.bytes_size(usage.memory)} / {units.bytes_size(usage.limit)}"

    return {
        "Container": ("CONTAINER", lambda usage: short_id(usage.id, no_trunc)),
        "ID": ("CONTAINER ID", lambda usage: short_id(usage.id, no_trunc)),
        "Name": ("NAME", lambda usage: usage.name),
        "CPUPerc": ("CPU %", lambda usage: f"{usage.cpu:.2f}%"),
        "MemUsage": ("MEM USAGE / LIMIT", memory),
        "MemPerc": ("MEM %", lambda usage: f"{usage.memory_percent:.2f}%"),
        "NetIO": ("NET I/O", network),
        "BlockIO": ("BLOCK I/O", block),
        "PIDs": ("PIDS", lambda usage: str(usage.pids)),
    }


COMMAND = Command(
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    run,
    flags=(
        Flag("all", "a", "bool", "Show all containers"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("no-stream", "", "bool", "Disable streaming stats and only pull the first result"),
        Flag("no-trunc", "", "bool", "Do not truncate output"),
    ),
    description=(
        "CPU is in percent of one CPU. Memory is the usage of the cgroup without the page cache "
        "that the kernel reclaims first."
    ),
    examples=(("Print one sample of a container", "jaula stats --no-stream web"),),
    see_also=("cgtop", "top", "update"),
    completes="container",
)
