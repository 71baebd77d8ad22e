"""Tables aligned as Docker aligns them: columns of at least ten cells, three between them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_WIDTH, GAP = 10, 3


def aligned(lines: Sequence[str], min_width: int = MIN_WIDTH, gap: int = GAP) -> str:
    """Align lines whose cells are separated by tabs. The last cell of a line is not padded.

    A column is as wide as in the block of adjacent lines that have it (Go's text/tabwriter).
    """
    rows = [line.split("\t") for line in lines]
    widths = [[0] * (len(row) - 1) for row in rows]
    _measure(rows, widths, 0, len(rows), 0, min_width, gap)
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, wide, strict=False)) + row[-1] + "\n"
        for row, wide in zip(rows, widths, strict=True)
    )


def _measure(
    rows: list[list[str]],
    widths: list[list[int]],
    first: int,
    end: int,
    column: int,
    min_width: int,
    gap: int,
) -> None:
    start = first
    while start < end:
        if len(rows[start]) <= column + 1:
            start += 1
            continue
        stop = start
        while stop < end and len(rows[stop]) > column + 1:
            stop += 1
        wide = max(max(len(rows[at][column]) for at in range(start, stop)) + gap, min_width)
        for at in range(start, stop):
            widths[at][column] = wide
        _measure(rows, widths, start, stop, column + 1, min_width, gap)
        start = stop
