"""``jaula context rm``."""

from __future__ import annotations

import sys

from jaula.cli.client import contexts, endpoint
from jaula.cli.client.endpoint import DEFAULT
from jaula.cli.command import Command, Flag, Options


def run(options: Options) -> int:
    """Remove the contexts; 1 if one of them could not be removed."""
    force, current = options.on("force"), endpoint.current_context()
    status = 0
    for name in options.arguments:
        problem = _problem(name, current, force=force)
        if problem:
            sys.stdout.flush()
            sys.stderr.write(problem + "\n")
            status = 1
            continue
        if contexts.configured_name() == name:
            contexts.use(DEFAULT)
        contexts.remove(name)
        print(name)
    return status


def _problem(name: str, current: str, *, force: bool) -> str:
    if name == DEFAULT:
        return 'default: context "default" cannot be removed'
    if not contexts.exists(name):
        return "" if force else f'context "{name}" does not exist'
    if name == current and not force:
        return f'context "{name}" is in use, set -f flag to force remove'
    return ""


COMMAND = Command(
    "[OPTIONS] CONTEXT [CONTEXT...]",
    "Remove one or more contexts",
    run,
    flags=(Flag("force", "f", "bool", "Force the removal of a context in use"),),
    min_args=1,
    description="The certificates and the key of a context are removed with it.",
    examples=(("Remove a context", "jaula context rm far"),),
    see_also=("context ls",),
    completes="context",
)
