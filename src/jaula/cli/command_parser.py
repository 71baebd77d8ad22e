"""Flags declared as a table, and the parser that reads an argument list by that table.

The grammar is that of Docker's command line (the Go package pflag): ``--name value``,
``--name=value``, ``-n value``, ``-nvalue``, ``-n=value``, clusters of short booleans (``-itd``),
``--bool=false``, and ``--`` as the end of the flags. For a command that passes arguments on to a
program in a container, the flags end at the first argument.

The parser checks the form of a value. The command checks its meaning.
"""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.spec.flag import Flag as Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

TRUE_WORDS = ("1", "t", "T", "true", "TRUE", "True")
FALSE_WORDS = ("0", "f", "F", "false", "FALSE", "False")


HELP = Flag("help", "", "bool", "Print usage")


class Command:
    """One command: its parser, help page and completion.

    ``min_args`` and ``max_args`` limit the number of arguments (None: no limit). ``interspersed``
    allows flags after the first argument. ``raw`` takes every word as an argument.
    """

    def __init__(
        self,
        usage: str,
        summary: str,
        run: Callable[[Options], int],
        *,
        flags: Sequence[Flag] = (),
        min_args: int = 0,
        max_args: int | None = None,
        interspersed: bool = True,
        raw: bool = False,
        description: str = "",
        examples: Sequence[tuple[str, str]] = (),
        exit_status: Sequence[tuple[str, str]] = (),
        see_also: Sequence[str] = (),
        completes: str | tuple[str, ...] = "",
    ) -> None:
        self.path = ""  # set by command_table.load: the words that selected the command
        self.usage = usage
        self.summary = summary
        self.run = run
        self.flags = tuple(flags)
        self.min_args = min_args
        self.max_args = max_args
        self.interspersed = interspersed
        self.raw = raw
        self.description = description
        self.examples = tuple(examples)
        self.exit_status = tuple(exit_status)
        self.see_also = tuple(see_also)
        self.completes = completes


class Options:
    """The flags that are set, and the remaining arguments."""

    __slots__ = ("_values", "arguments", "command")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.arguments: list[str] = []
        self._values: dict[str, Any] = {}

    def set(self, flag: Flag, text: str) -> None:
        """Set ``flag`` from ``text``.

        :raises UsageError: when the value is invalid.
        """
        value = _convert(flag, text)
        if flag.kind == "list":
            self._values.setdefault(flag.name, []).append(value)
        else:
            self._values[flag.name] = value

    @property
    def names(self) -> Collection[str]:
        """Return the names of the flags that are on the command line."""
        return self._values

    def is_set(self, name: str) -> bool:
        """Return whether the flag is on the command line."""
        return name in self._values

    def on(self, name: str, default: bool = False) -> bool:
        """Return the value of a boolean flag."""
        return bool(self._values.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        """Return the value of a string flag."""
        return str(self._values.get(name, default))

    def seconds(self, name: str) -> float | None:
        """Return the value of a flag with a duration, in seconds; None if it is not set.

        :raises UsageError: when it is not a positive duration.
        """
        if not self.is_set(name):
            return None
        from jaula.spec import units

        text = self.text(name)
        try:
            value: float = units.nanoseconds(text) / 1e9
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "--{name}" flag: {error}') from None
        if value <= 0:
            raise UsageError(f'invalid argument "{text}" for "--{name}" flag: it must be positive')
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return the value of a string flag that has one of ``choices``, the first by default.

        :raises UsageError: when it has another value.
        """
        value = self.text(name, choices[0])
        if value not in choices:
            joined = ", ".join(choices)
            raise UsageError(f'invalid argument "{value}" for "--{name}": must be one of {joined}')
        return value

    def texts(self, name: str) -> list[str]:
        """Return the values of a repeatable flag, in the order of the command line."""
        return list(self._values.get(name, ()))

    def number(self, name: str, default: int = 0) -> int:
        """Return the value of a flag of kind int, size (bytes), seconds or decimal (billionths)."""
        return int(self._values.get(name, default))


def parse(command: Command, words: Sequence[str]) -> Options:
    """Parse ``words`` by the flag table of ``command``.

    ``--help`` is set as the flag ``help`` and ends the parsing.

    :raises UsageError: when a flag is unknown or invalid, in Docker's words.
    """
    options = Options(command)
    if command.raw:
        options.arguments = list(words)
        return options
    by_name = {flag.name: flag for flag in command.flags}
    by_short = {flag.short: flag for flag in command.flags if flag.short}
    by_name.setdefault("help", HELP)
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            options.arguments += words[position:]
            break
        if len(word) < 2 or word[0] != "-":
            if not command.interspersed:
                options.arguments += words[position - 1 :]
                break
            options.arguments.append(word)
        elif word[1] == "-":
            position = _long(options, by_name, word, words, position)
        else:
            position = _short(options, by_short, word, words, position)
        if options.is_set("help"):
            break
    return options


def check_arguments(options: Options) -> None:
    """Check the number of arguments.

    :raises UsageError: when there are fewer or more arguments than the command takes.
    """
    command = options.command
    count = len(options.arguments)
    if command.min_args <= count and (command.max_args is None or count <= command.max_args):
        return
    if command.max_args == 0:
        requirement = "accepts no arguments"
    elif command.max_args is None or (
        count < command.min_args and command.min_args != command.max_args
    ):
        requirement = f"requires at least {_count(command.min_args)}"
    elif command.min_args == command.max_args:
        requirement = f"requires exactly {_count(command.min_args)}"
    else:
        requirement = f"requires at most {_count(command.max_args)}"
    raise UsageError(f'"jaula {command.path}" {requirement}.', status=1, usage=True)


def _count(number: int) -> str:
    return f"{number} argument" + ("" if number == 1 else "s")


def _long(
    options: Options, table: dict[str, Flag], word: str, words: Sequence[str], position: int
) -> int:
    name, equals, value = word[2:].partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: {word}")
    flag = table.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: --{name}" + _suggestion(name, table))
    if equals:
        options.set(flag, value)
    elif flag.kind == "bool":
        options.set(flag, "true")
    elif flag.implied:
        options.set(flag, flag.implied)
    elif position < len(words):
        options.set(flag, words[position])
        position += 1
    else:
        raise UsageError(f"flag needs an argument: --{name}")
    return position


def _short(
    options: Options, table: dict[str, Flag], word: str, words: Sequence[str], position: int
) -> int:
    letters = word[1:]
    while letters:
        letter, rest = letters[0], letters[1:]
        flag = table.get(letter)
        if flag is None:
            if letter == "h":
                options.set(HELP, "true")
                return position
            raise UsageError(f"unknown shorthand flag: '{letter}' in -{letters}")
        if len(rest) > 1 and rest[0] == "=":
            options.set(flag, rest[1:])
            return position
        if flag.kind == "bool":
            options.set(flag, "true")
            letters = rest
            continue
        if rest:
            options.set(flag, rest)
        elif position < len(words):
            options.set(flag, words[position])
            position += 1
        else:
            raise UsageError(f"flag needs an argument: '{letter}' in -{letters}")
        return position
    return position


def _suggestion(name: str, table: dict[str, Flag]) -> str:
    from jaula.cli import suggestion

    close = suggestion.flags(name, table)
    return f" (did you mean {' or '.join('--' + word for word in close)}?)" if close else ""


def _convert(flag: Flag, text: str) -> object:
    try:
        if flag.kind in ("string", "list"):
            return text
        if flag.kind == "bool":
            return _boolean(text)
        from jaula.spec import units

        if flag.kind == "int":
            return units.integer(text)
        if flag.kind == "size":
            return units.size(text)
        if flag.kind == "decimal":
            return units.nano_cpus(text)
        return units.seconds(text)
    except ValueError as error:
        raise UsageError(f'invalid argument "{text}" for "{flag.label}" flag: {error}') from None


def _boolean(text: str) -> bool:
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
