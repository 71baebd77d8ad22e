"""The error for a Dockerfile: file, line, reason and the text of the lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jaula.errors import InvalidRequest

_MAX_LINES = 5
"""Lines of an instruction in a message."""

_WIDTH = 200
"""Characters of a line in a message."""


class DockerfileError(InvalidRequest):
    """An error in a Dockerfile; :meth:`at` adds the location.

    ``reason`` is the text without location. ``name`` and ``line`` are the location; lines count
    from 1, and 0 means unknown. With a location, the message starts with ``NAME:LINE: `` and ends
    with the text of the lines.
    """

    def __init__(
        self,
        reason: str,
        *,
        hint: str = "",
        name: str = "",
        line: int = 0,
        lines: Sequence[str] = (),
    ) -> None:
        self.reason = f"{reason} ({hint})" if hint else reason
        self.name, self.line = name, line
        rows = [f"{name}:{line}: {self.reason}" if line else self.reason]
        rows += [f"{line + i:>4} | {printable(text)}" for i, text in enumerate(lines[:_MAX_LINES])]
        if len(lines) > _MAX_LINES:
            rows.append("     | ...")
        super().__init__("\n".join(rows))

    def at(self, name: str, line: int, lines: Sequence[str] = ()) -> DockerfileError:
        """Return the error with a location. An error that has one keeps it."""
        return (
            self if self.line else DockerfileError(self.reason, name=name, line=line, lines=lines)
        )


def printable(text: str) -> str:
    """Return one line of untrusted text in printable form."""
    line = "".join(
        c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text[:_WIDTH]
    )
    return line + ("..." if len(text) > _WIDTH else "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt ``word``: ``did you mean RUN?``, or '' if no name is similar."""
    import difflib  # slow to import, used for errors only

    matches = difflib.get_close_matches(word[:40].lower(), [k.lower() for k in known], 1, 0.7)
    if not matches:
        return ""
    return f"did you mean {next(k for k in known if k.lower() == matches[0])}?"
