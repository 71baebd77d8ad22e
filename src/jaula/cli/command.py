"""Flags declared as a table, and the parser that reads an argument list by that table.

The grammar is the one Docker's command line has (the Go package pflag): ``--name value``,
``--name=value``, ``-n value``, ``-nvalue``, ``-n=value``, clusters of short booleans (``-itd``),
``--bool=false``, ``--`` as the end of flags. Where a command hands its arguments on to a program
in a container, flags end at the first argument.

Values are checked while parsing; what they mean is the command's business.
"""

from __future__ import annotations

from jaula.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

TRUE_WORDS = ("1", "t", "T", "true", "TRUE", "True")
FALSE_WORDS = ("0", "f", "F", "false", "FALSE", "False")


class Flag:
    """One flag of one command.

    ``kind`` says how a value is read: ``bool``, ``string``, ``list`` (may be given again),
    ``int``, ``size`` (bytes, ``64mb``), ``seconds``, ``decimal``. ``completes`` names what a shell
    offers for the value: ``container``, ``image``, ``file`` or a list of words.
    """

    __slots__ = ("completes", "default", "group", "help", "kind", "metavar", "name", "short")

    def __init__(
        self,
        name: str,
        short: str = "",
        kind: str = "string",
        help: str = "",
        *,
        metavar: str = "",
        group: str = "",
        default: str = "",
        completes: str | tuple[str, ...] = "",
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        self.metavar = metavar
        self.group = group
        self.default = default
        self.completes = completes

    @property
    def label(self) -> str:
        """How messages name the flag: ``-t, --tty``."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


HELP = Flag("help", "", "bool", "Print usage")


class Command:
    """Everything that is known about one command: its parser, page and completion."""

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
        self.path = ""  # set by the table: the words that the command was found under
        self.usage = usage
        self.summary = summary
        self.run = run
        self.flags = tuple(flags)
        self.min_args = min_args
        self.max_args = max_args
        self.interspersed = interspersed
        self.raw = raw  # every word is an argument
        self.description = description
        self.examples = tuple(examples)
        self.exit_status = tuple(exit_status)
        self.see_also = tuple(see_also)
        self.completes = completes


class Options:
    """The flags that were given, and the arguments that remain."""

    __slots__ = ("_values", "arguments", "command")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.arguments: list[str] = []
        self._values: dict[str, Any] = {}

    def set(self, flag: Flag, text: str) -> None:
        """Record one value of ``flag``; raises UsageError where it cannot be read."""
        value = _convert(flag, text)
        if flag.kind == "list":
            self._values.setdefault(flag.name, []).append(value)
        else:
            self._values[flag.name] = value

    def is_set(self, name: str) -> bool:
        """Whether the flag was on the command line at all."""
        return name in self._values

    def on(self, name: str, default: bool = False) -> bool:
        """A boolean flag."""
        return bool(self._values.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        """A flag that takes one string."""
        return str(self._values.get(name, default))

    def texts(self, name: str) -> list[str]:
        """A flag that may be repeated, in the order given."""
        return list(self._values.get(name, ()))

    def number(self, name: str, default: int = 0) -> int:
        """A flag of kind int, size (bytes), seconds or decimal (billionths)."""
        return int(self._values.get(name, default))


def parse(command: Command, words: Sequence[str]) -> Options:
    """Read ``words`` by the command's table.

    Raises UsageError in Docker's words. ``--help`` is recorded as the flag ``help``.
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
    """Raise UsageError where there are fewer or more arguments than the command takes."""
    command = options.command
    found = len(options.arguments)
    if command.min_args <= found and (command.max_args is None or found <= command.max_args):
        return
    if command.max_args == 0:
        wanted = "accepts no arguments"
    elif command.max_args is None or (
        found < command.min_args and command.min_args != command.max_args
    ):
        wanted = f"requires at least {_count(command.min_args)}"
    elif command.min_args == command.max_args:
        wanted = f"requires exactly {_count(command.min_args)}"
    else:
        wanted = f"requires at most {_count(command.max_args)}"
    raise UsageError(f'"jaula {command.path}" {wanted}.', status=1, usage=True)


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
        raise UsageError(f"unknown flag: --{name}" + _near(name, table))
    if equals:
        options.set(flag, value)
    elif flag.kind == "bool":
        options.set(flag, "true")
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


def _near(name: str, table: dict[str, Flag]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, table, n=2, cutoff=0.6)
    close += [known for known in table if known.startswith(name) and known not in close][:2]
    return f" (near: {', '.join('--' + word for word in close)})" if close else ""


def _convert(flag: Flag, text: str) -> object:
    try:
        if flag.kind in ("string", "list"):
            return text
        if flag.kind == "bool":
            return _boolean(text)
        from jaula.cli import units

        if flag.kind == "int":
            return units.integer(text)
        if flag.kind == "size":
            return units.size(text)
        if flag.kind == "decimal":
            return units.nano(text)
        return units.seconds(text)
    except ValueError as error:
        raise UsageError(f'invalid argument "{text}" for "{flag.label}" flag: {error}') from None


def _boolean(text: str) -> bool:
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
