"""``jaula pod rm``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.pods import pods, select


def run(options: Options) -> int:
    """Remove the pods with their containers."""
    status = select.each(
        options, lambda client, pod: pods.remove(client, pod, force=options.on("force"))
    )
    select.remove_files(options, status)
    return status


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Remove one or more pods",
    run,
    flags=(
        Flag("force", "f", "bool", "Remove running containers too"),
        *select.FLAGS,
    ),
    description="Removes the pods with their containers.",
    examples=(("Remove a running pod", "jaula pod rm -f web"),),
    see_also=("pod stop", "pod ls"),
)
