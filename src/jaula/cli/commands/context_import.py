"""``jaula context import``."""

from __future__ import annotations

import sys

from jaula.cli.client import contexts
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError


def run(options: Options) -> int:
    """Store the context of an archive under a name."""
    from jaula.cli.client import context_archive

    name, source = options.arguments
    contexts.check_name(name)
    if contexts.exists(name):
        raise CliError(f'context "{name}" already exists')
    limit = context_archive.MAX_SIZE
    if source == "-":
        data = sys.stdin.buffer.read(limit + 1)
    else:
        try:
            with open(source, "rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise CliError(f"open {source}: {(error.strerror or str(error)).lower()}") from None
    contexts.save(context_archive.unpack(data)._replace(name=name))
    print(name)
    sys.stderr.write(f'Successfully imported context "{name}"\n')
    return 0


COMMAND = Command(
    "CONTEXT FILE|-",
    "Import a context from a tar or zip file",
    run,
    min_args=2,
    max_args=2,
    description="Reads an archive of 'context export', also docker's.",
    examples=(("Import from a file", "jaula context import far far.tar"),),
    see_also=("context export",),
)
