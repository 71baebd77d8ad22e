"""``jaula context show``."""

from __future__ import annotations

from jaula.cli.client import endpoint
from jaula.cli.command import Command, Options


def run(options: Options) -> int:
    """Print the name of the current context."""
    print(endpoint.current_context())
    return 0


COMMAND = Command(
    "",
    "Print the name of the current context",
    run,
    max_args=0,
    description=(
        "The context that results from the options, the environment and the configuration file."
    ),
    examples=(("Show it in the shell prompt", "PS1='[$(jaula context show)] $ '"),),
    see_also=("context use", "context ls"),
)
