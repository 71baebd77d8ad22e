"""Here-documents: where they are announced, and what is in them.

Source: the Dockerfile reference, section 'Here-Documents', and POSIX ``sh`` 2.7.4. ``<<NAME`` and
``<<-NAME`` count where a word begins with them, behind digits at most; ``<<<`` does not, and
neither does what stands in quotes.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jaula.images.build.dockerfile.errors import DockerfileError, plain
from jaula.images.build.dockerfile.exec_form import json_list
from jaula.images.build.dockerfile.flags import take
from jaula.images.build.dockerfile.words import halves, quoted

_LIMIT = 1000
"""Here-documents of one instruction."""

_NAME_MAX = 255
"""Bytes of a file's name (``limits.h``)."""

_TAKERS = frozenset({"run", "copy", "add"})


class Marker(msgspec.Struct, frozen=True):
    """``<<NAME``: ``expand`` if nothing of it is quoted, ``tabs`` to be taken away for ``<<-``."""

    name: str
    expand: bool
    tabs: bool


def markers(line: str, escape: str, ends: Callable[[Marker], bool]) -> tuple[list[Marker], str]:
    """What an instruction's whole line announces, in order, and the line with each in one word.

    White space before the name is allowed where the name is a plain word and ``ends`` knows a line
    that is this name alone: ``1 << 2`` and ``x << y`` are arithmetic.
    """
    if "<<" not in line:
        return [], line
    word, rest = halves(line)
    if word.lower() == "onbuild":
        word, rest = halves(rest)
    if word.lower() not in _TAKERS:
        return [], line
    rest = take(rest)[1]
    if rest.startswith("[") and json_list(rest) is not None:
        return [], line
    found: list[Marker] = []
    at = len(line) - len(rest)
    words = quoted(rest, escape)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        at = line.index(word, at) + len(word)
        one = marker(word)
        if one is None and following and word.rstrip("-").endswith("<<"):
            one = marker(word + following)
            if one is None or not _is_plain(one.name) or not ends(one):
                continue
            line = line[:at] + line[line.index(following, at) :]
        if one is not None:
            found.append(one)
            if len(found) > _LIMIT:
                raise DockerfileError(f"more than {_LIMIT} here-documents")
    return found, line


def _is_plain(name: str) -> bool:
    return name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdecimal()


def marker(word: str) -> Marker | None:
    """Read one word."""
    digits, arrows, rest = word.partition("<<")
    if not arrows or "<" in rest or (digits and not (digits.isascii() and digits.isdecimal())):
        return None
    tabs = rest.startswith("-")
    rest = rest.removeprefix("-")
    name, bare = _unquoted(rest)
    return Marker(name, bare, tabs) if name else None


def _unquoted(text: str) -> tuple[str, bool]:
    """The name without quotes and backslashes, and whether there were none; '' for no name."""
    made: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif char == "\\" and quote != "'":
            made.append(text[at : at + 1])
            at += 1
        elif char.isspace():
            return "", False
        else:
            made.append(char)
    name = "".join(made)
    return ("", False) if quote else (name, name == text)


def file_name(name: str) -> str:
    """The name of a here-document that becomes a file; raises :class:`DockerfileError` where it is none."""
    if "/" in name or name in (".", "..") or len(name.encode()) > _NAME_MAX:
        raise DockerfileError(f"heredoc name {plain(name)!r} cannot be a file's name")
    return name


def without_tabs(content: str) -> str:
    """``content`` without the tabs at the beginning of its lines."""
    return "\n".join(line.lstrip("\t") for line in content.split("\n"))
