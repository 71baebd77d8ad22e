"""``jaula help``."""

from __future__ import annotations

from jaula.cli import manual, table
from jaula.cli.failure import Failure
from jaula.cli.flags import Command, Options


def run(options: Options) -> int:
    """Print the page of a command, of a group, or of all."""
    words = " ".join(options.arguments)
    if not words:
        print(manual.overview(), end="")
    elif words in table.GROUPS:
        print(manual.group(words), end="")
    elif words in table.COMMANDS or words in table.ALIASES:
        print(manual.page(table.load(words)), end="")
    else:
        raise Failure(f"jaula: no help for '{words}': it is not a jaula command")
    return 0


COMMAND = Command(
    "[COMMAND]",
    "Help about a command",
    run,
    most=2,
    description="The same pages as --help of each command.",
    examples=(("A page", "jaula help container ls"),),
    see_also=("completion",),
)
