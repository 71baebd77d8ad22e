"""``jaula help``."""

from __future__ import annotations

from jaula.cli import command_table
from jaula.cli import help as cli_help
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError


def run(options: Options) -> int:
    """Print the help page of a command, of a group, or of jaula."""
    words = " ".join(options.arguments)
    if not words:
        print(cli_help.overview(), end="")
    elif words in command_table.GROUPS:
        print(cli_help.group(words), end="")
    elif words in command_table.COMMANDS or words in command_table.ALIASES:
        print(cli_help.page(command_table.load(words)), end="")
    else:
        raise CliError(f"jaula: no help for '{words}': not a jaula command")
    return 0


COMMAND = Command(
    "[COMMAND]",
    "Help about the command",
    run,
    max_args=2,
    description="Prints the same page as --help of the command.",
    examples=(("Help of a command", "jaula help container ls"),),
    see_also=("completion",),
)
