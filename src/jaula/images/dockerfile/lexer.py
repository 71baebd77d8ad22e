"""Split a text into logical lines: directives, comments, continuation, here-documents.

Source: the Dockerfile reference, sections 'Format', 'Parser directives', 'escape'. The escape
character at the end of a line, followed by white space at most, joins it with the next line, unless
it is escaped itself. Comments and empty lines between the parts are dropped.

Here-documents: the Dockerfile reference, section 'Here-Documents', and POSIX ``sh`` 2.7.4. A marker
(``<<NAME``, ``<<-NAME``) starts a word, preceded by digits at most. ``<<<`` is not a marker, nor is
quoted text.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jaula.images.dockerfile.ast import Directives, Heredoc, LintWarning, Location
from jaula.images.dockerfile.dockerfile_error import DockerfileError, printable
from jaula.images.dockerfile.dockerfile_words import (
    SPACES,
    json_list,
    split_first,
    split_flags,
    split_quoted,
)

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


def find_markers(
    line: str, escape: str, ends: Callable[[Marker], bool]
) -> tuple[list[Marker], str]:
    """Return the here-document markers of a line, and the line with each marker as one word.

    White space before the name is allowed only if the name is a plain word and ``ends`` returns
    true for it, that is, a line consists of this name: ``1 << 2`` and ``x << y`` are arithmetic.
    """
    if "<<" not in line:
        return [], line
    word, rest = split_first(line)
    if word.lower() == "onbuild":
        word, rest = split_first(rest)
    if word.lower() not in _ACCEPTING:
        return [], line
    rest = split_flags(rest)[1]
    if rest.startswith("[") and json_list(rest) is not None:
        return [], line
    result: list[Marker] = []
    at = len(line) - len(rest)
    words = split_quoted(rest, escape)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        at = line.index(word, at) + len(word)
        candidate = parse_marker(word)
        if candidate is None and following and word.rstrip("-").endswith("<<"):
            candidate = parse_marker(word + following)
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


def parse_marker(word: str) -> Marker | None:
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


def check_file_name(name: str) -> str:
    """Return ``name`` if it is a valid file name.

    :raises DockerfileError: if it is not.
    """
    if "/" in name or name in (".", "..") or len(name.encode()) > _NAME_MAX:
        raise DockerfileError(f"heredoc name {printable(name)!r} is not a valid file name")
    return name


def strip_tabs(content: str) -> str:
    """Return ``content`` without the tabs at the start of its lines."""
    return "\n".join(line.lstrip("\t") for line in content.split("\n"))


_DIRECTIVES = ("escape", "syntax", "check")


class LogicalLine(msgspec.Struct, frozen=True):
    """The text of an instruction without its here-documents, which are in order of their markers.

    ``documents`` is their unchanged text with the closing delimiters, for a shell.
    """

    location: Location
    text: str
    heredocs: tuple[Heredoc, ...] = ()
    documents: str = ""


class Lines(msgspec.Struct, frozen=True):
    directives: Directives
    lines: tuple[LogicalLine, ...]
    warnings: tuple[LintWarning, ...]


def split(rows: tuple[str, ...], name: str, escape: str = "") -> Lines:
    r"""Split the lines of a file, without their ``\n``, into logical lines.

    ``escape`` is the escape character if ``rows`` are a part of a file whose directives are known.

    :raises DockerfileError: if a directive or a here-document is not valid.
    """
    directives, at = (Directives(escape), 0) if escape else _directives(rows, name)
    reader = _Reader(rows, name, directives.escape)
    lines: list[LogicalLine] = []
    while at < len(rows):
        at = reader.line(at, lines)
    return Lines(directives, tuple(lines), tuple(reader.warnings))


def _directives(rows: tuple[str, ...], name: str) -> tuple[Directives, int]:
    """Return the directives at the top, and the number of their lines."""
    values: dict[str, str] = {}
    for at, row in enumerate(rows):
        text = row.strip(SPACES)
        if not text.startswith("#"):
            break
        key, equals, value = text[1:].partition("=")
        key, value = key.strip(SPACES).lower(), value.strip(SPACES)
        if not equals or not value or key not in _DIRECTIVES:
            break
        if key in values:
            raise DockerfileError(f"only one {key} parser directive can be used").at(
                name, at + 1, [row]
            )
        if key == "escape" and value not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token '{value[:20]}' does not match ` or \\").at(
                name, at + 1, [row]
            )
        values[key] = value
    return Directives(**values), len(values)


class _Reader:
    def __init__(self, rows: tuple[str, ...], name: str, escape: str) -> None:
        self.rows, self.name, self.escape = rows, name, escape
        self.warnings: list[LintWarning] = []
        self._last: dict[str, int] | None = None

    def line(self, at: int, lines: list[LogicalLine]) -> int:
        """Add the line that starts with row ``at`` and return the row of the next one."""
        first = at + 1
        row = self.rows[at].rstrip("\r").lstrip(SPACES)
        at += 1
        if not row or row.startswith("#"):
            return at
        text, continues = self._split_escape(row)
        if continues:
            text, at = self._join(text, first, at)
        text = text.strip(SPACES)
        if not text:
            return at
        try:
            heredoc_markers, text = find_markers(
                text, self.escape, lambda marker: self._ends(marker, at)
            )
        except DockerfileError as error:
            raise error.at(self.name, first, self.rows[first - 1 : at]) from None
        if not heredoc_markers:
            lines.append(LogicalLine(Location(first, at), text))
            return at
        heredocs: list[Heredoc] = []
        documents: list[str] = []
        for marker in heredoc_markers:
            heredoc, raw, at = self._heredoc(marker, first, at)
            heredocs.append(heredoc)
            documents.append(raw)
        lines.append(LogicalLine(Location(first, at), text, tuple(heredocs), "\n".join(documents)))
        return at

    def _join(self, text: str, first: int, at: int) -> tuple[str, int]:
        """Return a line with its continuation rows, and the row after it."""
        parts = [text]
        empty = False
        continues = True
        while continues and at < len(self.rows):
            row = self.rows[at].rstrip("\r")
            at += 1
            begin = row.lstrip(SPACES)
            if not begin:
                empty = True
            elif not begin.startswith("#"):
                row, continues = self._split_escape(row)
                parts.append(row)
        if empty:
            self.warnings.append(
                LintWarning("NoEmptyContinuation", "Empty continuation line", Location(first, at))
            )
        return "".join(parts), at

    def _split_escape(self, row: str) -> tuple[str, bool]:
        short = row.rstrip(" \t")
        if short.endswith(self.escape) and not short.endswith(self.escape * 2):
            return short[:-1], True
        return row, False

    def _ends(self, marker: Marker, at: int) -> bool:
        """Return whether a row from ``at`` on is the delimiter of such a here-document."""
        if self._last is None:  # the last row of each text, also under its form with a tab
            self._last = {}
            for number, row in enumerate(self.rows):
                text = row.rstrip("\r")
                self._last[text] = self._last["\t" + text.lstrip("\t")] = number
        return self._last.get("\t" + marker.name if marker.tabs else marker.name, -1) >= at

    def _heredoc(self, marker: Marker, first: int, at: int) -> tuple[Heredoc, str, int]:
        begin = at
        while at < len(self.rows):
            row = self.rows[at].rstrip("\r")
            at += 1
            if (row.lstrip("\t") if marker.tabs else row) == marker.name:
                break
        else:
            raise DockerfileError(
                f"unterminated heredoc: no line consists of {marker.name[:80]!r}"
            ).at(self.name, first, self.rows[first - 1 : begin])
        rows = self.rows[begin : at - 1]
        content = "".join([f"{row}\n" for row in rows])
        raw = content + marker.name
        if marker.tabs:
            content = strip_tabs(content)
        return Heredoc(marker.name, content, marker.expand), raw, at
