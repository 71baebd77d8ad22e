"""The difference of two records: what a program did in one and not in the other. Pure.

Counts, times and resources are not compared: they depend on the load. A program is compared by its
path and name, not by the number of its line.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from jaula.features.record.record_document import UNKNOWN, UNLISTED, Entry, Program
from jaula.features.record.record_reader import Record

_NUMBERS = frozenset({"count", "first", "last"})
_REFERENCES = frozenset({"program", "executed", "receiver_program"})
_FIELDS = tuple(name for name in Entry.__struct_fields__ if name not in _NUMBERS)


class Difference(NamedTuple):
    """Entries of only one record: line numbers of it, in its order."""

    removed: tuple[int, ...]  # only in the first record
    added: tuple[int, ...]  # only in the second record


def compare(before: Record, after: Record) -> Difference:
    """Return what was added and removed."""
    first, second = _subjects(before), _subjects(after)
    return Difference(
        tuple(n for subject, n in first.items() if subject not in second),
        tuple(n for subject, n in second.items() if subject not in first),
    )


def _subjects(record: Record) -> dict[tuple[object, ...], int]:
    result: dict[tuple[object, ...], int] = {}
    for n, entry in record.entries.items():
        if entry.kind == "resource":
            continue
        subject = tuple(
            program_of(record, getattr(entry, name))
            if name in _REFERENCES
            else getattr(entry, name)
            for name in _FIELDS
        )
        result.setdefault(subject, n)
    return result


def program_of(record: Record, number: int) -> tuple[str, str]:
    """Return path and name of a program that an entry refers to."""
    if number in (UNKNOWN, UNLISTED):
        return ("", "unknown" if number == UNKNOWN else "unlisted")
    program = record.programs.get(number) or Program(path="")
    return program.path, program.name


def document_of(record: Record, n: int) -> dict[str, object]:
    """Return an entry as JSON is printed: programs by path, not by line."""
    entry = record.entries[n]
    document: dict[str, object] = msgspec.to_builtins(entry)
    document.pop("type", None)
    document = {"kind": entry.kind, "count": entry.count, "first": entry.first} | document
    document["last"] = entry.last
    if entry.kind == "resource":
        document["value"] = entry.value
    for name in _REFERENCES:
        number = getattr(entry, name)
        if number != UNKNOWN or name == "program":
            path, alias = program_of(record, number)
            document[name] = {"path": path} | ({"name": alias} if alias else {})
    return document
