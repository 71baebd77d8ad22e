"""``jaula pod prune``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.images import prune
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.pods import pods


def run(options: Options) -> int:
    """Prompt, remove the pods that have exited, and print their ids."""
    prune.confirm(
        "This will remove all stopped/exited pods and their containers.",
        force=options.on("force"),
    )
    client = Client(Settings.host)
    result = 0
    for pod in pods.listed(client):
        if pod.status != "Exited":
            continue
        try:
            pods.remove(client, pod)
        except CliError as error:  # such as a container that another client has started
            sys.stderr.write(error.message + "\n")
            result = 1
        else:
            print(pod.id)
    return result


COMMAND = Command(
    "[OPTIONS]",
    "Remove all stopped pods and their containers",
    run,
    flags=(prune.FORCE,),
    max_args=0,
    description="Removes pods that have exited. Pods that were created and never started stay.",
    examples=(("Do not prompt", "jaula pod prune -f"),),
    see_also=("pod rm", "system prune"),
)
