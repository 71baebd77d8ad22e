"""The one error that a Dockerfile's text leads to: file, line, what is wrong, the line itself."""

from __future__ import annotations

from collections.abc import Sequence

from jaula.errors import InvalidRequest

_SHOWN = 5
"""Lines of an instruction that are shown at most."""

_WIDTH = 200
"""Characters of a line that are shown at most."""


class Mistake(InvalidRequest):
    """``message`` begins with ``NAME:LINE: ``; the lines follow, each with its number.

    ``name``, ``line`` (the first is 1) and ``reason`` are the parts of the message.
    """

    def __init__(
        self, name: str, line: int, reason: str, lines: Sequence[str] = (), *, hint: str = ""
    ) -> None:
        self.name, self.line, self.reason = name, line, reason
        head = f"{name}:{line}: {reason}" + (f" ({hint})" if hint else "")
        shown = [f"{line + i:>4} | {_cut(text)}" for i, text in enumerate(lines[:_SHOWN])]
        if len(lines) > _SHOWN:
            shown.append(f"{'':>4} | ...")
        super().__init__("\n".join([head, *shown]))


def _cut(text: str) -> str:
    """One line as a terminal can show it."""
    plain = "".join(
        c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text[:_WIDTH]
    )
    return plain + ("..." if len(text) > _WIDTH else "")
