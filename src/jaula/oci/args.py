"""One call of the command: its flags and arguments, read as Go's flag package reads them.

``--name value``, ``--name=value`` and ``-name`` are the same; a flag without value takes ``=true``
or ``=false`` only; the first word that is no flag ends them, and so does ``--``.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.oci.log import Log
from jaula.oci.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VALUE, SWITCH, LIST = "value", "switch", "list"
"""Kinds of flags; another string makes a flag the short form of the one it names."""


class CommandArgs:
    """What a command is run with."""

    def __init__(
        self, command: str, options: Options, arguments: list[str], settings: Settings, log: Log
    ) -> None:
        self.command = command
        self.options = options
        self.arguments = arguments
        self.settings = settings
        self.log = log

    def container_id(self) -> str:
        """The one argument of most commands. Raises ``InvalidRequest``."""
        if len(self.arguments) != 1:
            raise InvalidRequest(
                f'"{self.command}" requires exactly 1 argument(s), {len(self.arguments)} given'
            )
        return self.arguments[0]


class Options:
    """The flags that were given."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}
        self._switches: dict[str, bool] = {}

    def put(self, name: str, kind: str, value: str) -> None:
        """Note one flag. Raises ``InvalidRequest`` for a switch that is neither true nor false."""
        if kind != SWITCH:
            self._values.setdefault(name, []).append(value)
        elif value in ("true", "1", "t", "T", "TRUE", "True"):
            self._switches[name] = True
        elif value in ("false", "0", "f", "F", "FALSE", "False"):
            self._switches[name] = False
        else:
            raise InvalidRequest(f"--{name}: {value!r} is neither true nor false")

    def get(self, name: str, default: str = "") -> str:
        """A flag's value, the last where it was given more than once."""
        values = self._values.get(name)
        return values[-1] if values else default

    def all(self, name: str) -> list[str]:
        """Every value of a flag that may be repeated."""
        return self._values.get(name, [])

    def given(self, name: str) -> bool:
        """Whether the flag was there at all."""
        return name in self._values or name in self._switches

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        return self._switches.get(name, False)

    def number(self, name: str, default: int = 0) -> int:
        """A flag's value as a whole number. Raises ``InvalidRequest``."""
        text = self.get(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise InvalidRequest(f"--{name}: {text!r} is not a whole number") from None


def parse(words: Sequence[str], flags: Mapping[str, str], where: str) -> tuple[Options, list[str]]:
    """(flags, what follows them). Raises ``InvalidRequest`` that names ``where``."""
    options = Options()
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            position += 1
            break
        if len(word) < 2 or not word.startswith("-"):
            break
        position += 1
        name, separator, value = word.lstrip("-").partition("=")
        kind = flags.get(name)
        if kind is not None and kind not in (VALUE, SWITCH, LIST):
            name, kind = kind, flags[kind]
        if kind is None:
            raise InvalidRequest(
                f"flag provided but not defined: -{name}", hint=f"{where} --help lists them"
            )
        if not separator and kind == SWITCH:
            value = "true"
        elif not separator:
            if position == len(words):
                raise InvalidRequest(f"flag needs an argument: -{name}")
            value = words[position]
            position += 1
        options.put(name, kind, value)
    return options, list(words[position:])
