"""The one error that a Dockerfile's text leads to: file, line, what is wrong, the line itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jaula.errors import InvalidRequest

_SHOWN = 5
"""Lines of an instruction that are shown at most."""

_WIDTH = 200
"""Characters of a line that are shown at most."""


class DockerfileError(InvalidRequest):
    """What is wrong with a text; :meth:`at` says where.

    ``reason`` is what is wrong, ``name`` and ``line`` are where (the first line is 1; 0 as long as
    nobody knew). With a place, the message begins with ``NAME:LINE: `` and ends with the lines.
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
        rows += [f"{line + i:>4} | {plain(text)}" for i, text in enumerate(lines[:_SHOWN])]
        if len(lines) > _SHOWN:
            rows.append("     | ...")
        super().__init__("\n".join(rows))

    def at(self, name: str, line: int, lines: Sequence[str] = ()) -> DockerfileError:
        """The same, with a place; one that has a place keeps it."""
        return (
            self if self.line else DockerfileError(self.reason, name=name, line=line, lines=lines)
        )


def plain(text: str) -> str:
    """One line of foreign text as a terminal can show it."""
    shown = "".join(
        c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text[:_WIDTH]
    )
    return shown + ("..." if len(text) > _WIDTH else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt ``word``: ``did you mean RUN?``, '' where nothing is near."""
    import difflib  # nobody else has a use for it

    found = difflib.get_close_matches(word[:40].lower(), [k.lower() for k in known], 1, 0.7)
    if not found:
        return ""
    return f"did you mean {next(k for k in known if k.lower() == found[0])}?"
