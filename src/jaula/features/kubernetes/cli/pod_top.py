"""``jaula pod top``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.main import Settings
from jaula.cli.output.table import aligned
from jaula.features.kubernetes.cli.pods import select
from jaula.features.kubernetes.cli.pods.list import container_name


def run(options: Options) -> int:
    """Print the processes of the containers of the pod as ps(1) on the host shows them."""
    client = Client(Settings.host)
    pod, words = select.one_of(client, options)
    rows: list[str] = []
    for entry in pod.containers:
        if entry["State"] not in ("running", "paused"):
            continue
        query = (("ps_args", " ".join(words)),)
        processes = client.get(f"/containers/{entry['Id']}/top", query)
        rows = rows or ["\t".join(["CONTAINER", *processes["Titles"]])]
        name = container_name(entry)
        rows += ["\t".join([name, *row]) for row in processes["Processes"] or ()]
    if not rows:
        raise CliError(f"no container of the pod {pod.name} is running", status=125)
    sys.stdout.write(aligned(rows))
    return 0


COMMAND = Command(
    "[OPTIONS] POD [ps OPTIONS]",
    "Display the running processes of the containers of a pod",
    run,
    flags=(select.LATEST,),
    interspersed=False,
    description="PIDs and users are those of the host. The first column names the container.",
    examples=(("Select columns", "jaula pod top web -o pid,user,args"),),
    see_also=("top", "pod stats"),
    completes="pod",
)
