"""``jaula context use``."""

from __future__ import annotations

import sys

from jaula.cli.client import contexts, endpoint
from jaula.cli.client.endpoint import DEFAULT
from jaula.cli.command import Command, Options


def run(options: Options) -> int:
    """Make a context the current one."""
    (name,) = options.arguments
    if name != DEFAULT:
        contexts.load(name)
    contexts.use(name)
    print(name)
    sys.stderr.write(f'Current context is now "{name}"\n')
    if (variable := endpoint.host_variable()) and name != DEFAULT:
        sys.stderr.write(
            f"Warning: {variable} environment variable overrides the active context. To use "
            f'"{name}", either set the global --context flag, or unset {variable} environment '
            "variable.\n"
        )
    return 0


COMMAND = Command(
    "CONTEXT",
    "Set the current context",
    run,
    min_args=1,
    max_args=1,
    description=(
        "The current context selects the engine for jaula and docker. --host, --context and "
        "the variables JAULA_HOST, DOCKER_HOST and DOCKER_CONTEXT override it."
    ),
    examples=(("Use the engine of this host again", "jaula context use default"),),
    see_also=("context ls", "context show"),
    completes="context",
)
