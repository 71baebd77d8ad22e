"""``jaula unpause``."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Options
from jaula.cli.for_each import each_container


def run(options: Options) -> int:
    """Unpause the containers."""
    return each_container(options.arguments, "unpause")


COMMAND = Command(
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    run,
    min_args=1,
    description="Resumes the processes of a paused container.",
    examples=(("Resume a container", "jaula unpause web"),),
    see_also=("pause",),
    completes="container",
)
