"""The tokens of one line: words, flags and the exec form.

Quotes and escapes stay in the words; the expansion of variables removes them.

Flags stand between an instruction's name and its arguments: ``--from=build``. They end at the first
word that does not start with ``--``, or after a ``--`` alone. Quotes may enclose white space, and a
backslash escapes the next character; both are removed from flags.

Arguments have two forms: the exec form, a JSON list of strings, or plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

import msgspec

from jaula.images.dockerfile.dockerfile_error import DockerfileError, did_you_mean

SPACES = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""White space around a line and between words that may be quoted (Unicode's list)."""

_UNQUOTED = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@=,%*?[]{}()<>|&;!^~#`"
)
"""Characters that need no quotes."""

_TO_SPACE = str.maketrans("\t\v\f\r", "    ")


def fields(text: str) -> list[str]:
    """Split at ASCII white space; quotes have no meaning."""
    return [word for word in text.translate(_TO_SPACE).split(" ") if word]


def split_first(text: str) -> tuple[str, str]:
    """Return the first word, and the text after the white space behind it."""
    first, _, rest = text.translate(_TO_SPACE).partition(" ")
    return first, text[len(text) - len(rest) :].lstrip("\t\v\f\r ")


def split_quoted(text: str, escape: str) -> list[str]:
    """Split at white space that is not quoted or escaped. An open quote extends to the end."""
    if '"' not in text and "'" not in text and escape not in text and text.isprintable():
        return [word for word in text.split(" ") if word]
    words: list[str] = []
    start = -1  # start of the word, -1 between words
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if start < 0:
            if char in SPACES:
                at += 1
                continue
            start = at
        elif not quote and char in SPACES:
            words.append(text[start:at])
            start = -1
            at += 1
            continue
        if char == escape and quote != "'":
            if at + 1 == len(text):
                text = text[:at]  # an escape at the end has no effect
                break
            at += 2
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        at += 1
    if 0 <= start < len(text):
        words.append(text[start:])
    return words


def quote(text: str) -> str:
    r"""Return ``text`` as one word of a line that parses back to it, with backslash as the escape.

    Line breaks become ``\n`` to keep it on one line (this does not parse back).
    """
    if text and _UNQUOTED.issuperset(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return '"' + escaped.replace("\n", "\\n") + '"'


class FlagKind(Enum):
    """The value of a flag: one text, an optional true or false, or one text per occurrence."""

    TEXT = auto()
    SWITCH = auto()
    TEXTS = auto()


def split_flags(text: str) -> tuple[list[str], str]:
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
    return did_you_mean(f"--{name}", [f"--{k}" for k in known])


def json_list(text: str) -> tuple[str, ...] | None:
    """Parse the exec form, a JSON list of strings. Return None for any other text.

    :raises DockerfileError: if it is a list of other values.
    """
    if not text.startswith("["):
        return None
    try:
        items = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    if not all(isinstance(item, str) for item in items):
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only"
        )
    if any("\0" in item for item in items):
        raise DockerfileError("a JSON string contains a null byte")
    return tuple(items)


def format_json(words: tuple[str, ...]) -> str:
    """Return the canonical form of a list: ``["a", "b"]``."""
    return "[" + ", ".join(msgspec.json.encode(word).decode() for word in words) + "]"
