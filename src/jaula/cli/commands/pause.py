"""``jaula pause``."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Options
from jaula.cli.for_each import each_container


def run(options: Options) -> int:
    """Pause the containers."""
    return each_container(options.arguments, "pause")


COMMAND = Command(
    "CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    run,
    min_args=1,
    description=("Freezes every process of the container through its cgroup."),
    examples=(("Pause a container", "jaula pause web"),),
    see_also=("unpause",),
    completes="container",
)
