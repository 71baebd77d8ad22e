"""``jaula context export``."""

from __future__ import annotations

import sys

from jaula.cli.client import contexts
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError


def run(options: Options) -> int:
    """Write a context, with its private key, into an archive."""
    from jaula.cli.client import context_archive

    name = options.arguments[0]
    target = options.arguments[1] if len(options.arguments) > 1 else f"{name}.dockercontext"
    data = context_archive.pack(contexts.load(contexts.check_name(name)))
    if target == "-":
        if sys.stdout.isatty():
            raise CliError("cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    import os

    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CliError(f"open {target}: {(error.strerror or str(error)).lower()}") from None
    with open(descriptor, "wb") as file:
        file.write(data)
    sys.stderr.write(f'Written file "{target}"\n')
    return 0


COMMAND = Command(
    "CONTEXT [FILE|-]",
    "Export a context to a tar archive FILE or a tar stream on STDOUT",
    run,
    min_args=1,
    max_args=2,
    description=(
        "The archive contains the private key: anyone who has it can connect to the engine."
    ),
    examples=(("To a file", "jaula context export far far.tar"),),
    see_also=("context import",),
    completes="context",
)
