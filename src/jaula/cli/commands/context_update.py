"""``jaula context update``."""

from __future__ import annotations

import sys

from jaula.cli.client import contexts
from jaula.cli.command import Command, Options
from jaula.cli.commands.context_create import DESCRIPTION, ENDPOINT


def run(options: Options) -> int:
    """Change what is given and print the name."""
    (name,) = options.arguments
    contexts.check_name(name)
    found = contexts.load(name)
    if options.is_set("docker"):
        made = contexts.parse_endpoint(options.text("docker"))
        found = made._replace(name=name, description=found.description, raw=found.raw)
    if options.is_set("description"):
        found = found._replace(description=options.text("description"))
    contexts.save(found)
    print(name)
    sys.stderr.write(f'Successfully updated context "{name}"\n')
    return 0


COMMAND = Command(
    "[OPTIONS] CONTEXT",
    "Change a context",
    run,
    flags=(DESCRIPTION, ENDPOINT),
    min_args=1,
    max_args=1,
    description="What --docker says replaces the whole endpoint, its certificates too.",
    examples=(("Another description", "jaula context update far --description 'the lab'"),),
    see_also=("context create",),
    completes="context",
)
