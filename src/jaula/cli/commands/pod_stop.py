"""``jaula pod stop``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.pods import pods, select


def run(options: Options) -> int:
    """Stop the pods."""
    seconds = options.number("time") if options.is_set("time") else None
    return select.each(options, lambda client, pod: pods.stop(client, pod, seconds))


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Stop one or more pods",
    run,
    flags=(
        Flag("time", "t", "int", "Seconds to wait before killing the containers"),
        *select.FLAGS,
    ),
    description="Stops the containers of the pods, the infra container last.",
    examples=(("Stop a pod", "jaula pod stop web"),),
    see_also=("pod start", "pod rm"),
)
