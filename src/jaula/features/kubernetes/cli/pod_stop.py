"""``jaula pod stop``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.features.kubernetes.cli.pods import pods, select


def run(options: Options) -> int:
    """Stop the pods."""
    seconds = select.seconds(options)
    return select.each(options, lambda client, pod: pods.stop(client, pod, seconds))


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Stop one or more pods",
    run,
    flags=(*select.TIME_FLAGS, *select.FLAGS),
    description="Stops the containers of the pods, the infra container last.",
    examples=(("Stop a pod", "jaula pod stop web"),),
    see_also=("pod start", "pod kill", "pod rm"),
    completes="pod",
)
