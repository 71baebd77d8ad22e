"""``jaula pod pause``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.features.kubernetes.cli.pods import pods, select


def run(options: Options) -> int:
    """Pause the pods."""
    return select.each(options, pods.pause, "running")


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Pause one or more pods",
    run,
    flags=select.FLAGS,
    description="Freezes every process of the running containers of the pods.",
    examples=(("Pause a pod", "jaula pod pause web"),),
    see_also=("pod unpause", "pause"),
    completes="pod",
)
