"""``jaula pod restart``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.features.kubernetes.cli.pods import pods, select


def run(options: Options) -> int:
    """Restart the pods."""
    seconds = select.seconds(options)
    return select.each(options, lambda client, pod: pods.restart(client, pod, seconds))


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Restart one or more pods",
    run,
    flags=(*select.TIME_FLAGS, *select.FLAGS),
    description="Stops the containers of the pods and starts all of them, also those that exited.",
    examples=(("Restart a pod", "jaula pod restart web"),),
    see_also=("pod stop", "pod start"),
    completes="pod",
)
