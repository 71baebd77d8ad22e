"""``jaula pod logs``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.commands import logs as container_logs
from jaula.cli.errors import CliError, UsageError
from jaula.cli.main import Settings
from jaula.cli.output.ansi import redraws
from jaula.cli.output.times import timestamp
from jaula.features.kubernetes.cli.pods import logs, pods, select
from jaula.features.kubernetes.cli.pods.list import container_name
from jaula.spec.visible_text import visible_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLORS = (32, 33, 34, 35, 36, 31)  # SGR codes of foreground colours


def run(options: Options) -> int:
    """Print the logs of the containers of the pod, each line with the container."""
    client = Client(Settings.host)
    pod, others = select.one_of(client, options)
    if others:
        raise UsageError(f'"jaula {options.command.path}" requires exactly 1 argument.', status=1)
    entries = _entries(pod, options.text("container"))
    sources = []
    for number, entry in enumerate(entries):
        tty = client.get(f"/containers/{entry['Id']}/json")["Config"]["Tty"]
        sources.append(logs.Source(entry["Id"], _prefix(entry, number, options), tty=tty))
    tail = options.text("tail", "all")
    query = (
        ("stdout", True),
        ("stderr", True),
        ("since", timestamp(options.text("since"))),
        ("until", timestamp(options.text("until"))),
        ("timestamps", options.on("timestamps")),
        ("follow", options.on("follow")),
        ("tail", "all" if tail == "-1" else tail),  # podman's default is -1
    )
    (logs.follow if options.on("follow") else logs.show)(client, sources, query)
    return 0


def _entries(pod: pods.Pod, ref: str) -> list[dict[str, Any]]:
    """Return the containers of the pod without the infra container, or the one that ``ref`` names.

    :raises CliError: when the pod has no such container.
    """
    if not ref:
        return pod.members
    for entry in pod.containers:
        if ref in (container_name(entry), container_name(entry).removeprefix(f"{pod.name}-")):
            return [entry]
    selected = [entry for entry in pod.containers if entry["Id"].startswith(ref)]
    if len(selected) != 1:
        raise CliError(f"the pod {pod.name} has no container {ref}", status=125)
    return selected


def _prefix(entry: dict[str, Any], number: int, options: Options) -> str:
    text = visible_line(container_name(entry)) if options.on("names") else str(entry["Id"])[:12]
    if options.on("color") and redraws(1):
        text = f"\x1b[{_COLORS[number % len(_COLORS)]}m{text}\x1b[0m"
    return f"{text} "


COMMAND = Command(
    "[OPTIONS] POD",
    "Fetch the logs of the containers of a pod",
    run,
    flags=(
        Flag("color", "", "bool", "Print the containers in different colors"),
        Flag("container", "c", "string", "Print the log of this container only"),
        *(flag for flag in container_logs.COMMAND.flags if flag.name not in ("details", "tail")),
        select.LATEST,
        Flag("names", "n", "bool", "Print the names of the containers in place of their IDs"),
        Flag("tail", "", "string", "Number of lines of each container to show", default="all"),
    ),
    description=(
        "Prints the log entries of all containers in the order of time, each with the ID of its "
        "container. With --follow, entries are printed as they arrive."
    ),
    examples=(("Follow the logs of a pod", "jaula pod logs -f --names web"),),
    see_also=("logs", "pod top"),
    completes="pod",
)
