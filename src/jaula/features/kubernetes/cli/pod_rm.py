"""``jaula pod rm``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.features.kubernetes.cli.pods import pods, select


def run(options: Options) -> int:
    """Remove the pods with their containers."""
    seconds, force = select.seconds(options), options.on("force")

    def remove(client: Client, pod: pods.Pod) -> None:
        if force and seconds is not None:
            pods.stop(client, pod, seconds)
        pods.remove(client, pod, force=force)

    files = select.id_files(options)
    status = select.each(options, remove, files=files)
    for file in files if not status else ():
        file.remove()
    return status


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Remove one or more pods",
    run,
    flags=(
        Flag("force", "f", "bool", "Remove running containers too"),
        *select.TIME_FLAGS,
        *select.FLAGS,
    ),
    description=(
        "Removes the pods with their containers. With --force, running containers are killed; "
        "with --time they are stopped first."
    ),
    examples=(("Remove a running pod", "jaula pod rm -f web"),),
    see_also=("pod stop", "pod prune", "pod ls"),
    completes="pod",
)
