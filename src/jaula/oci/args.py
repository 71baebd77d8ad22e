"""Parse flags and arguments as Go's flag package does.

``--name value``, ``--name=value`` and ``-name`` are equivalent. A flag without a value takes only
``=true`` or ``=false``. ``--`` ends the flags. The first argument that is not a flag ends them only
for commands with a program's own words; other commands take flags after the container's id as well.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.oci.log import Log
from jaula.oci.runtime_settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VALUE, SWITCH, LIST = "value", "switch", "list"
"""Kinds of flags; another string makes a flag the short form of the one it names."""


class CommandArgs:
    """The parsed flags and arguments of a command."""

    def __init__(
        self, command: str, options: Options, arguments: list[str], settings: Settings, log: Log
    ) -> None:
        self.command = command
        self.options = options
        self.arguments = arguments
        self.settings = settings
        self.log = log

    def container_id(self) -> str:
        """Return the container id, the one argument of most commands.

        :raises InvalidRequest: when the number of arguments is not one.
        """
        if len(self.arguments) != 1:
            raise InvalidRequest(
                f'"{self.command}" requires exactly 1 argument(s), {len(self.arguments)} given'
            )
        return self.arguments[0]


class Options:
    """The values of the flags on the command line."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self._switches: dict[str, bool] = {}

    def set(self, name: str, kind: str, value: str) -> None:
        """Store the value of a flag.

        :raises InvalidRequest: when a switch is neither true nor false.
        """
        if kind != SWITCH:
            self._values.setdefault(name, []).append(value)
        elif value in ("true", "1", "t", "T", "TRUE", "True"):
            self._switches[name] = True
        elif value in ("false", "0", "f", "F", "FALSE", "False"):
            self._switches[name] = False
        else:
            raise InvalidRequest(f"--{name}: {value!r} must be true or false")

    def get(self, name: str, default: str = "") -> str:
        """Return the value of a flag; the last one if it is repeated."""
        values = self._values.get(name)
        return values[-1] if values else default

    def all(self, name: str) -> list[str]:
        """Return every value of a repeatable flag."""
        return self._values.get(name, [])

    def has(self, name: str) -> bool:
        """Return whether the flag is on the command line."""
        return name in self._values or name in self._switches

    def on(self, name: str) -> bool:
        """Return whether a switch is on."""
        return self._switches.get(name, False)

    def number(self, name: str, default: int = 0) -> int:
        """Return the value of a flag as a whole number.

        :raises InvalidRequest: when it is not one.
        """
        text = self.get(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise InvalidRequest(f"--{name}: {text!r} is not a whole number") from None


def parse(
    argv: Sequence[str], flags: Mapping[str, str], program: str, *, anywhere: bool = False
) -> tuple[Options, list[str]]:
    """Parse flags; return them and the remaining arguments.

    ``anywhere`` says that a known flag may follow an argument; an unknown one is an argument there.

    :raises InvalidRequest: when a flag is unknown or lacks a value; the hint names ``program``.
    """
    options = Options()
    arguments: list[str] = []
    position = 0
    while position < len(argv):
        argument = argv[position]
        if argument == "--":
            position += 1
            break
        name, separator, value = argument.lstrip("-").partition("=")
        kind = flags.get(name)
        is_flag = len(argument) > 1 and argument.startswith("-")
        if not is_flag or (arguments and kind is None):
            if not anywhere:
                break
            arguments.append(argument)
            position += 1
            continue
        position += 1
        if kind is not None and kind not in (VALUE, SWITCH, LIST):
            name, kind = kind, flags[kind]
        if kind is None:
            raise InvalidRequest(
                f"flag provided but not defined: -{name}", hint=f"{program} --help lists them"
            )
        if not separator and kind == SWITCH:
            value = "true"
        elif not separator:
            if position == len(argv):
                raise InvalidRequest(f"flag needs an argument: -{name}")
            value = argv[position]
            position += 1
        options.set(name, kind, value)
    return options, [*arguments, *argv[position:]]
