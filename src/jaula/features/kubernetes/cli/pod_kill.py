"""``jaula pod kill``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.features.kubernetes.cli.pods import pods, select


def run(options: Options) -> int:
    """Send a signal to the containers of the pods."""
    signal = options.text("signal", "KILL")
    return select.each(options, lambda client, pod: pods.kill(client, pod, signal), "running")


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Send a signal to the containers of one or more pods",
    run,
    flags=(
        Flag("signal", "s", "string", "Signal to send to the containers", default="KILL"),
        *select.FLAGS,
    ),
    description=(
        "Sends a signal, SIGKILL by default, to the init process of each running container. The "
        "infra container ends with SIGKILL, SIGTERM and SIGINT only."
    ),
    examples=(("Make all servers of a pod reload", "jaula pod kill -s HUP web"),),
    see_also=("pod stop", "kill"),
    completes="pod",
)
