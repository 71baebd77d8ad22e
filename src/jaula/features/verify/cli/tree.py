"""``jaula tree``: the host's process tree with the namespaces of each process."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.containers import listed_pods
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Print the tree of the given containers with their ancestors, or of the whole host."""
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.features.verify import pstree

    client = Client(Settings.host)
    if not options.arguments:
        client = Client(client.address.text)  # an explicit address starts no engine
    try:
        listed = client.get("/containers/json", (("pods", True),)) or []
    except CliError:
        if any(not _is_pid(name) for name in options.arguments):
            raise
        listed = []  # the tree of the host needs no engine
    groups = {
        name: pids
        for name, ids in listed_pods.groups(listed).items()
        if (pids := _pids(client, ids))
    }
    roots = []
    for name in options.arguments:
        if _is_pid(name):
            roots.append(int(name))
        elif members := listed_pods.select(listed, name):
            roots += _pids(client, [entry["Id"] for entry in members])
        else:
            document = client.get(f"/containers/{quote(name)}/json")
            if not document["State"]["Pid"]:
                raise CliError(f"container {name} is not running")
            roots.append(int(document["State"]["Pid"]))
    print(pstree.render(roots, groups=groups))
    return 0


def _is_pid(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 8


def _pids(client: Client, ids: list[str]) -> list[int]:
    """Return the first processes of containers; those that have exited are left out."""
    result = []
    for id in ids:
        try:
            pid = int(client.get(f"/containers/{id}/json")["State"]["Pid"])
        except EngineError:
            continue  # it was removed since it was listed
        if pid:
            result.append(pid)
    return result


COMMAND = Command(
    "[CONTAINER|POD|PID...]",
    "Display the process tree with the namespaces that change at each process",
    run,
    description=(
        "Like pstree -S: after each process come the namespaces in which it differs from its "
        "parent. Given containers are shown with their ancestors. The containers of a pod of "
        "Kubernetes are below a line with its name; POD is its name, NAMESPACE/NAME, UID or id."
    ),
    examples=(("Show a container from the shim to its processes", "jaula tree web"),),
    see_also=("top", "verify", "inspect"),
    completes="container",
)
