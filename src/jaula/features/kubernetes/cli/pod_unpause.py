"""``jaula pod unpause``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.features.kubernetes.cli.pods import pods, select


def run(options: Options) -> int:
    """Let the pods continue."""
    return select.each(options, pods.unpause, "paused")


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Unpause one or more pods",
    run,
    flags=select.FLAGS,
    description="Lets the processes of the paused containers of the pods continue.",
    examples=(("Let a pod continue", "jaula pod unpause web"),),
    see_also=("pod pause", "unpause"),
    completes="pod",
)
