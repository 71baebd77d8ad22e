"""One line of a proof: what was asked for, what the kernel says, where it says so."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """What a row comes to."""

    HOLDS = "holds"
    RELAXED = "relaxed"  # weaker than the default, as the flag named in the row asked for
    FAILS = "FAILS"  # the kernel's state is not what was asked for
    UNKNOWN = "unknown"  # the kernel did not tell


class Result(msgspec.Struct, frozen=True):
    """``evidence`` is the file or call that was read, so that a person can look as well.

    ``check`` names the :class:`~jaula.audit.model.check_info.CheckInfo` that the row belongs to.
    """

    id: str
    layer: str
    requested: str
    effective: str
    evidence: str
    verdict: Verdict
    check: str = ""


def passed(rows: Sequence[Result]) -> bool:
    """Whether a proof is complete: there are rows, none FAILS and none is unknown."""
    return bool(rows) and all(row.verdict in (Verdict.HOLDS, Verdict.RELAXED) for row in rows)


def verdict_of(holds: bool, relaxed_by: str | None) -> Verdict:
    """A verdict on state that is (or is not) as requested, by a flag or by default."""
    if not holds:
        return Verdict.FAILS
    return Verdict.RELAXED if relaxed_by else Verdict.HOLDS


def plain(text: str) -> str:
    """Without control characters: what comes from /proc must not move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], widest: int = 60) -> str:
    """Columns of text; cells wider than ``widest`` are cut, the last column never is."""

    def cut(cell: str) -> str:
        flat = plain(cell)
        return flat if len(flat) <= widest else flat[: widest - 3] + "..."

    lines = [[*(cut(cell) for cell in row[:-1]), row[-1]] for row in (header, *rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header) - 1)]
    return "\n".join(
        "  ".join((*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1])).rstrip()
        for line in lines
    )
