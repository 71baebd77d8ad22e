"""A table of test results in a document, between two markers: rows are replaced one by one."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Table(NamedTuple):
    """A table between the comments ``NAME: begin`` and ``NAME: end``.

    The first cell of a row is its key. ``keys`` are all of them, in the order of the table.
    """

    name: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: begin -->"

    @property
    def end(self) -> str:
        return f"<!-- {self.name}: end -->"

    def row(self, *cells: object) -> str:
        """Return one row; a cell has no line break and no bar."""
        return f"| {' | '.join(' '.join(str(c).split()).replace('|', '/') for c in cells)} |"

    def text(self, rows: dict[str, str]) -> str:
        """Return the table of the rows, by their key."""
        head = [self.row(*self.columns), self.row(*("---" for _ in self.columns))]
        return "\n".join([*head, *(rows[key] for key in self.keys if key in rows)])

    def read(self, document: str) -> dict[str, str]:
        """Return the rows of a document by their key.

        :raises ValueError: when the document lacks one of the markers.
        """
        _, begin, rest = document.partition(self.begin)
        table, end, _ = rest.partition(self.end)
        if not begin or not end:
            raise ValueError(f"no table between {self.begin} and {self.end}")
        lines = table.strip().splitlines()[2:]
        return {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}

    def replace(self, path: Path, rows: dict[str, str]) -> None:
        """Replace rows of the document's table; others are kept.

        :raises SystemExit: when the document lacks one of the markers.
        """
        document = path.read_text(encoding="utf-8")
        try:
            merged = self.read(document) | rows
        except ValueError as error:
            raise SystemExit(f"{path}: {error}") from None
        head, tail = document.partition(self.begin)[0], document.partition(self.end)[2]
        text = f"{head}{self.begin}\n{self.text(merged)}\n{self.end}{tail}"
        path.write_text(text, encoding="utf-8")


def today() -> str:
    """Return the date in UTC, as in ISO 8601."""
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def unknown(selected: Sequence[str], keys: Sequence[str]) -> str:
    """Return an error about selected keys that do not exist, '' if all do."""
    absent = sorted(set(selected) - set(keys))
    return f"unknown name {', '.join(absent)}: must be one of {', '.join(keys)}" if absent else ""


def report(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
