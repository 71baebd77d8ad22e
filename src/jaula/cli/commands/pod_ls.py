"""``jaula pod ls``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import times
from jaula.cli.pods import pods

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADER = ("POD ID", "NAME", "STATUS", "CREATED", "INFRA ID", "# OF CONTAINERS")


def run(options: Options) -> int:
    """Print one line for each pod."""
    client = Client(Settings.host)
    found = pods.listed(client)
    if options.on("quiet"):
        for pod in found:
            print(pod.id if options.on("no-trunc") else pod.id[:12])
        return 0
    length = 64 if options.on("no-trunc") else 12
    rows: list[tuple[str, ...]] = [
        (pod.id[:length], pod.name, pod.status, times.ago(pod.infra["Created"]), pod.id[:12],
         str(len(pod.members) + 1))
        for pod in found
    ]  # fmt: skip
    rows += [_kubernetes(entries, length) for entries in _sandboxes(client)]
    table = [_HEADER, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADER))]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


def _sandboxes(client: Client) -> list[list[dict[str, Any]]]:
    """Return the containers of each pod that the kubelet runs, the sandbox first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in client.get("/containers/json", (("all", True), ("pods", True))):
        if entry.get("Pod"):
            groups.setdefault(entry["Pod"]["Sandbox"], []).append(entry)
    return [
        sorted(group, key=lambda e: str(e["Pod"].get("Container"))) for group in groups.values()
    ]


def _kubernetes(entries: list[dict[str, Any]], length: int) -> tuple[str, ...]:
    from jaula.cli.containers.pods import title

    first = entries[0]
    sandbox = str(first["Pod"]["Sandbox"])
    status = "Running" if first["State"] == "running" else "Exited"
    created = times.ago(first["Created"])
    return (sandbox[:length], title(first["Pod"]), status, created, sandbox[:12], str(len(entries)))


COMMAND = Command(
    "[OPTIONS]",
    "List pods",
    run,
    flags=(
        Flag("no-trunc", "", "bool", "Do not truncate output"),
        Flag("quiet", "q", "bool", "Only display pod IDs"),
    ),
    max_args=0,
    description="Lists the pods of `pod create` and `kube play`, and those that a kubelet runs.",
    examples=(("List pods", "jaula pod ls"),),
    see_also=("pod create", "pod inspect", "ps"),
)
