"""A text as logical lines: directives, comments, continuation, here-documents.

Source: the Dockerfile reference, sections 'Format', 'Parser directives', 'escape'. The escape
character at the end of a line, with white space behind it at most, takes the line break away,
unless another one stands before it. Comments and empty lines between the parts are left out.
"""

from __future__ import annotations

import msgspec

from jaula.images.build.dockerfile.ast import Heredoc, Location
from jaula.images.build.dockerfile.document import Directives, LintWarning
from jaula.images.build.dockerfile.errors import DockerfileError
from jaula.images.build.dockerfile.heredoc import Marker, markers, without_tabs
from jaula.images.build.dockerfile.words import SPACES

_DIRECTIVES = ("escape", "syntax", "check")


class LogicalLine(msgspec.Struct, frozen=True):
    """An instruction's text without the here-documents, which are in order of their markers.

    ``documents`` are the same as they were written, with their last lines, for a shell to read.
    """

    place: Location
    text: str
    heredocs: tuple[Heredoc, ...] = ()
    documents: str = ""


class Lines(msgspec.Struct, frozen=True):
    directives: Directives
    lines: tuple[LogicalLine, ...]
    remarks: tuple[LintWarning, ...]


def split(rows: tuple[str, ...], name: str, escape: str = "") -> Lines:
    """``rows`` are the file's lines without their ``\\n``; raises :class:`DockerfileError`.

    With an ``escape`` they are a part of a file whose directives are known.
    """
    directives, at = (Directives(escape), 0) if escape else _directives(rows, name)
    reader = _Reader(rows, name, directives.escape)
    lines: list[LogicalLine] = []
    while at < len(rows):
        at = reader.line(at, lines)
    return Lines(directives, tuple(lines), tuple(reader.remarks))


def _directives(rows: tuple[str, ...], name: str) -> tuple[Directives, int]:
    """What the comments at the top say, and how many lines that are."""
    found: dict[str, str] = {}
    for at, row in enumerate(rows):
        text = row.strip(SPACES)
        if not text.startswith("#"):
            break
        key, equals, value = text[1:].partition("=")
        key, value = key.strip(SPACES).lower(), value.strip(SPACES)
        if not equals or not value or key not in _DIRECTIVES:
            break
        if key in found:
            raise DockerfileError(f"only one {key} parser directive can be used").at(
                name, at + 1, [row]
            )
        if key == "escape" and value not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token '{value[:20]}' does not match ` or \\").at(
                name, at + 1, [row]
            )
        found[key] = value
    return Directives(**found), len(found)


class _Reader:
    def __init__(self, rows: tuple[str, ...], name: str, escape: str) -> None:
        self.rows, self.name, self.escape = rows, name, escape
        self.remarks: list[LintWarning] = []
        self._last: dict[str, int] | None = None

    def line(self, at: int, lines: list[LogicalLine]) -> int:
        """Add the line that begins with row ``at`` and say where the next one does."""
        first = at + 1
        row = self.rows[at].rstrip("\r").lstrip(SPACES)
        at += 1
        if not row or row.startswith("#"):
            return at
        text, goes_on = self._continued(row)
        if goes_on:
            text, at = self._joined(text, first, at)
        text = text.strip(SPACES)
        if not text:
            return at
        try:
            announced, text = markers(text, self.escape, lambda marker: self._ends(marker, at))
        except DockerfileError as mistake:
            raise mistake.at(self.name, first, self.rows[first - 1 : at]) from None
        if not announced:
            lines.append(LogicalLine(Location(first, at), text))
            return at
        heredocs: list[Heredoc] = []
        documents: list[str] = []
        for marker in announced:
            heredoc, written, at = self._heredoc(marker, first, at)
            heredocs.append(heredoc)
            documents.append(written)
        lines.append(LogicalLine(Location(first, at), text, tuple(heredocs), "\n".join(documents)))
        return at

    def _joined(self, text: str, first: int, at: int) -> tuple[str, int]:
        """The rows that belong to a line which does not end with its first one."""
        parts = [text]
        empty = False
        goes_on = True
        while goes_on and at < len(self.rows):
            row = self.rows[at].rstrip("\r")
            at += 1
            begin = row.lstrip(SPACES)
            if not begin:
                empty = True
            elif not begin.startswith("#"):
                row, goes_on = self._continued(row)
                parts.append(row)
        if empty:
            self.remarks.append(
                LintWarning("NoEmptyContinuation", "Empty continuation line", Location(first, at))
            )
        return "".join(parts), at

    def _continued(self, row: str) -> tuple[str, bool]:
        short = row.rstrip(" \t")
        if short.endswith(self.escape) and not short.endswith(self.escape * 2):
            return short[:-1], True
        return row, False

    def _ends(self, marker: Marker, at: int) -> bool:
        """Whether a row from ``at`` on is the last one of such a here-document."""
        if self._last is None:  # the last row of each text; with tabs in front it counts as both
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
                f"unterminated heredoc: no line is {marker.name[:80]!r} alone"
            ).at(self.name, first, self.rows[first - 1 : begin])
        rows = self.rows[begin : at - 1]
        content = "".join([f"{row}\n" for row in rows])
        written = content + marker.name
        if marker.tabs:
            content = without_tabs(content)
        return Heredoc(marker.name, content, marker.expand), written, at
