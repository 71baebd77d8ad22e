"""Occurrences in records, summed by item of a profile. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jaula.features.record.compare_records import program_of
from jaula.features.record.record_document import Entry, Program, bytes_of
from jaula.features.record.record_reader import Record
from jaula.spec.confinement_profile import Evidence

UNKNOWN = "(unknown)"  # the program of what ran before its program was read
_MAX_PROGRAMS = 4  # of an item's evidence
_MAX_REASONS = 4
_MAX_TEXT = 128  # characters of a program or reason


def shortened(text: str) -> str:
    """Return a text with its end only if it is long: a container chooses paths."""
    return text if len(text) <= _MAX_TEXT else f"...{text[3 - _MAX_TEXT :]}"


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


class Tally:
    """How often something occurs, in which records, by which programs and for what."""

    def __init__(self) -> None:
        self.count = 0
        self.records: set[int] = set()
        self.programs: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, record: int, program: str, count: int, reason: str = "") -> None:
        """Add occurrences of one entry."""
        self.count += count
        self.records.add(record)
        self.programs[shortened(program)] += count
        if reason:
            self.reasons[shortened(reason)] += count

    def merge(self, other: Tally) -> None:
        """Add those of another tally."""
        self.count += other.count
        self.records |= other.records
        self.programs.update(other.programs)
        self.reasons.update(other.reasons)

    def evidence(self, reason: str = "") -> Evidence:
        """Return the evidence, with the most frequent programs and reasons."""
        programs = [name for name, _ in sorted(self.programs.items(), key=lambda x: (-x[1], x[0]))]
        rest = len(programs) - _MAX_PROGRAMS
        if rest > 0:
            programs = [*programs[:_MAX_PROGRAMS], f"{rest} more"]
        if not reason:
            reasons = [
                name for name, _ in sorted(self.reasons.items(), key=lambda x: (-x[1], x[0]))
            ]
            reason = ", ".join(reasons[:_MAX_REASONS])
            if len(reasons) > _MAX_REASONS:
                reason += f" and {len(reasons) - _MAX_REASONS} more"
        return Evidence(
            count=min(self.count, (1 << 63) - 1),
            records=len(self.records),
            programs=tuple(programs),
            reason=reason,
        )


class Tallies(dict[str, Tally]):
    """Tallies by item; an absent one is empty."""

    def __missing__(self, key: str) -> Tally:
        self[key] = tally = Tally()
        return tally

    def evidence(self, items: Iterable[str] | None = None) -> dict[str, Evidence]:
        """Return the evidence of items, of all if None."""
        return {
            item: self[item].evidence() for item in sorted(self if items is None else items)
        }  # fmt: skip


class Observation(NamedTuple):
    """An entry of a record."""

    record: int
    program: str  # the path
    entry: Entry
    executed: Program | None = None


def observations(records: Sequence[Record]) -> Iterator[Observation]:
    """Yield the entries of records with the paths of their programs."""
    for number, record in enumerate(records):
        for entry in record.entries.values():
            path, alias = program_of(record, entry.program)
            program = path or f"({alias or 'unknown'})"
            yield Observation(number, program, entry, record.programs.get(entry.executed))


def text(stored: str) -> str | None:
    """Return a text of a record as the container has it, None if it is not UTF-8."""
    try:
        return bytes_of(stored).decode()
    except (ValueError, UnicodeDecodeError):
        return None


def path_of(entry: Entry) -> str | None:
    """Return the path of a file as it is in the container, None if it is not known as a text."""
    if entry.lost_text or entry.truncated or entry.detached:
        return None
    path = text(entry.path)
    if path is None or not path.startswith("/") or len(path) > 4096 or "\0" in path:
        return None
    if "//" in path or "/../" in f"{path}/" or "/./" in f"{path}/":
        return None
    return path.rstrip("/") or "/"
