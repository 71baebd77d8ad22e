"""``jaula context update``."""

from __future__ import annotations

import sys

from jaula.cli.client import contexts
from jaula.cli.command import Command, Options
from jaula.cli.commands.context_create import DESCRIPTION, ENDPOINT


def run(options: Options) -> int:
    """Update a context and print its name."""
    (name,) = options.arguments
    contexts.check_name(name)
    context = contexts.load(name)
    if options.is_set("docker"):
        new_endpoint = contexts.parse_endpoint(options.text("docker"))
        context = new_endpoint._replace(name=name, description=context.description, raw=context.raw)
    if options.is_set("description"):
        context = context._replace(description=options.text("description"))
    contexts.save(context)
    print(name)
    sys.stderr.write(f'Successfully updated context "{name}"\n')
    return 0


COMMAND = Command(
    "[OPTIONS] CONTEXT",
    "Update a context",
    run,
    flags=(DESCRIPTION, ENDPOINT),
    min_args=1,
    max_args=1,
    description="--docker replaces the whole endpoint, including its certificates.",
    examples=(("Change the description", "jaula context update far --description 'the lab'"),),
    see_also=("context create",),
    completes="context",
)
