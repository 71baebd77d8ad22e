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

_MAX_HEREDOCS = 1000
"""Here-documents of one instruction."""

_NAME_MAX = 255
"""Bytes of a file name (``limits.h``)."""

_ACCEPTING = frozenset({"run", "copy", "add"})


class Marker(msgspec.Struct, frozen=True):
    """``<<NAME``: ``expand`` if no part is quoted, ``tabs`` if ``<<-`` strips leading tabs."""

    name: str
    expand: bool
    tabs: bool


def markers(line: str, escape: str, ends: Callable[[Marker], bool]) -> tuple[list[Marker], str]:
    """Return the here-document markers of a line, and the line with each marker as one word.

    White space before the name is allowed only if the name is a plain word and ``ends`` returns
    true for it, that is, a line consists of this name: ``1 << 2`` and ``x << y`` are arithmetic.
    """
    if "<<" not in line:
        return [], line
    word, rest = halves(line)
    if word.lower() == "onbuild":
        word, rest = halves(rest)
    if word.lower() not in _ACCEPTING:
        return [], line
    rest = take(rest)[1]
    if rest.startswith("[") and json_list(rest) is not None:
        return [], line
    result: list[Marker] = []
    at = len(line) - len(rest)
    words = quoted(rest, escape)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        at = line.index(word, at) + len(word)
        candidate = marker(word)
        if candidate is None and following and word.rstrip("-").endswith("<<"):
            candidate = marker(word + following)
            if candidate is None or not _is_plain(candidate.name) or not ends(candidate):
                continue
            line = line[:at] + line[line.index(following, at) :]
        if candidate is not None:
            result.append(candidate)
            if len(result) > _MAX_HEREDOCS:
                raise DockerfileError(
                    f"the instruction has more than {_MAX_HEREDOCS} here-documents"
                )
    return result, line


def _is_plain(name: str) -> bool:
    return name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdecimal()


def marker(word: str) -> Marker | None:
    """Parse one word as a marker; return None if it is not one."""
    digits, arrows, rest = word.partition("<<")
    if not arrows or "<" in rest or (digits and not (digits.isascii() and digits.isdecimal())):
        return None
    tabs = rest.startswith("-")
    rest = rest.removeprefix("-")
    name, bare = _unquote(rest)
    return Marker(name, bare, tabs) if name else None


def _unquote(text: str) -> tuple[str, bool]:
    """Return the name without quotes and backslashes, and whether there were none.

    The name is '' if the text is not a valid name.
    """
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
    """Return ``name`` if it is a valid file name.

    :raises DockerfileError: if it is not.
    """
    if "/" in name or name in (".", "..") or len(name.encode()) > _NAME_MAX:
        raise DockerfileError(f"heredoc name {plain(name)!r} is not a valid file name")
    return name


def without_tabs(content: str) -> str:
    """Return ``content`` without the tabs at the start of its lines."""
    return "\n".join(line.lstrip("\t") for line in content.split("\n"))
