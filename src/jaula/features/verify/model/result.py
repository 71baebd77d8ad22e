"""A row of a report: the request, the kernel's state, and the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """Verdict of a row."""

    HOLDS = "holds"
    RELAXED = "relaxed"  # weaker than the default, as requested by the flag in the row
    FAILS = "FAILS"  # the kernel's state is not as requested
    UNKNOWN = "unknown"  # the kernel's state could not be read


class Result(msgspec.Struct, frozen=True):
    """A row; ``evidence`` is the file or call that was read, for a manual check.

    ``check`` names the :class:`~jaula.features.verify.model.check_info.CheckInfo` of the row.
    """

    id: str
    layer: str
    requested: str
    effective: str
    evidence: str
    verdict: Verdict
    check: str = ""


def quantity(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if it is not one: ``1 process``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}es" if noun.endswith("s") else f"{number} {noun}s"


def passed(rows: Sequence[Result]) -> bool:
    """Return whether the report is a proof: it has rows, and each holds or is relaxed."""
    return bool(rows) and all(row.verdict in (Verdict.HOLDS, Verdict.RELAXED) for row in rows)


def verdict_of(holds: bool, relaxed_by: str | None) -> Verdict:
    """Return the verdict for a state that is as requested (``holds``), by a flag or by default."""
    if not holds:
        return Verdict.FAILS
    return Verdict.RELAXED if relaxed_by else Verdict.HOLDS


def plain(text: str) -> str:
    """Replace control characters: text from /proc must not control the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], widest: int = 60) -> str:
    """Format columns of text; cells longer than ``widest`` are cut, except in the last column."""

    def cut(cell: str) -> str:
        flat = plain(cell)
        return flat if len(flat) <= widest else flat[: widest - 3] + "..."

    lines = [[*(cut(cell) for cell in row[:-1]), row[-1]] for row in (header, *rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header) - 1)]
    return "\n".join(
        "  ".join((*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1])).rstrip()
        for line in lines
    )
