"""The flags between an instruction's name and its arguments: ``--from=build``.

They end at the first word that does not begin with ``--``, or behind a ``--`` alone. Quotes may
hold white space together, a backslash takes the next character as it is; both are gone afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

from jaula.images.build.dockerfile.errors import DockerfileError, nearest
from jaula.images.build.dockerfile.words import SPACES


class FlagKind(Enum):
    """The value of a flag: one text, an optional true or false, or one text per occurrence."""

    TEXT = auto()
    SWITCH = auto()
    TEXTS = auto()


def take(text: str) -> tuple[list[str], str]:
    """Return the flags at the start of ``text``, and the rest."""
    words: list[str] = []
    at = _skip_spaces(text, 0)
    while text.startswith("--", at):
        word, at = _word(text, at)
        at = _skip_spaces(text, at)
        if word == "--":
            break
        words.append(word)
    return words, text[at:]


def _skip_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in SPACES:
        at += 1
    return at


def _word(text: str, at: int) -> tuple[str, int]:
    """Return the word that starts at a position, and the position after it."""
    characters: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char in SPACES:
            break
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif char == "\\":
            characters.append(text[at : at + 1])
            at += 1
        else:
            characters.append(char)
    return "".join(characters), at


class Flags:
    """The flags of one instruction.

    :raises DockerfileError: if a flag is not one of ``known``, or its value is not valid.
    """

    def __init__(self, words: Sequence[str], known: Mapping[str, FlagKind]) -> None:
        self._values: dict[str, list[str]] = {}
        for word in words:
            name, equals, value = word[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                raise DockerfileError(f"unknown flag: --{name[:80]}", hint=_hint(name, known))
            if name in self._values and kind is not FlagKind.TEXTS:
                raise DockerfileError(f"duplicate flag specified: --{name}")
            if kind is FlagKind.SWITCH:
                value = value.lower() if equals else "true"
                if value not in ("true", "false"):
                    raise DockerfileError(
                        f"expecting boolean value for flag --{name}, not: {value[:80]}"
                    )
            elif not equals:
                raise DockerfileError(f"missing a value on flag: --{name}")
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """Return the value of a flag, '' if it is absent."""
        return self._values.get(name, ("",))[0]

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """Return the value of a flag, None if it is absent."""
        values = self._values.get(name)
        return None if values is None else values[0] == "true"


def _hint(name: str, known: Mapping[str, FlagKind]) -> str:
    return nearest(f"--{name}", [f"--{k}" for k in known])
