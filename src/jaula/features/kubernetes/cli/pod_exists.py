"""``jaula pod exists``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.pods import pods


def run(options: Options) -> int:
    """Return 0 if the pod exists, 1 if it does not."""
    try:
        pods.find(Client(Settings.host), options.arguments[0])
    except CliError as error:
        if error.status != pods.NO_POD:
            raise
        return 1
    return 0


COMMAND = Command(
    "POD",
    "Check whether a pod exists",
    run,
    min_args=1,
    max_args=1,
    description="Prints nothing.",
    examples=(("Create a pod unless it exists", "jaula pod exists web || jaula pod create web"),),
    exit_status=(("0", "the pod exists"), ("1", "it does not exist")),
    see_also=("pod ls", "pod inspect"),
    completes="pod",
)
