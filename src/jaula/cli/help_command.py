"""``jaula help``."""

from __future__ import annotations

from jaula.cli import command_table, help, suggestion
from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import Command, Options
from jaula.translation import topics


def run(options: Options) -> int:
    """Print the help page of a command, of a group, of a topic, or of jaula."""
    words = " ".join(options.arguments)
    if not words:
        print(help.overview(), end="")
    elif words in command_table.groups():
        print(help.group(words), end="")
    elif words in command_table.commands() or words in command_table.aliases():
        print(help.page(command_table.load(words)), end="")
    elif words in topics.NAMES:
        print(help.topic(words), end="")
    elif words == "topics":
        print(help.topic_list(), end="")
    else:
        names = [*command_table.commands(), *command_table.groups(), *topics.NAMES]
        close = suggestion.close(words, names)
        hint = f". Did you mean {' or '.join(close)}?" if close else ""
        raise CliError(
            f"jaula: no help for '{words}': not a command or a topic{hint}\n"
            "See 'jaula help' and 'jaula help topics'"
        )
    return 0


COMMAND = Command(
    "[COMMAND|TOPIC]",
    "Help about the command or the topic",
    run,
    max_args=2,
    description=(
        "For a command, prints the same page as --help. Topics are short pages about a subject: "
        "jaula help topics lists them. Pages are in Spanish if LC_ALL, LC_MESSAGES or LANG name "
        "that language, or LANGUAGE."
    ),
    examples=(
        ("Help of a command", "jaula help container ls"),
        ("A topic", "jaula help networks"),
        ("In Spanish", "LANG=es_ES.UTF-8 jaula help volumes"),
    ),
    see_also=("completion",),
    completes=topics.NAMES,
)
