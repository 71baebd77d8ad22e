"""Activity of a container, from one or several records. Pure.

Counts of several records are added. Names are as in the records; a renderer escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaula.features.record.compare_records import program_of
from jaula.features.record.record_document import Entry
from jaula.features.record.record_reader import Record

MAX_LANES = 14  # programs of a timeline
_PLAIN = frozenset({"kind", "program", "count", "first", "last", "executed", "receiver_program"})
_NETWORK = ("connect", "accept", "bind", "listen", "send")
_TABLES = (
    "programs",
    "syscalls",
    "refused_syscalls",
    "read",
    "written",
    "refused_files",
    "absent_files",
    "network",
    "capabilities",
    "refused_capabilities",
    "peaks",
    "other",
)


class Item(NamedTuple):
    """Something that was done: subject, how often, by which programs, and the first error."""

    subject: str
    occurrences: int
    programs: tuple[str, ...]
    detail: str = ""


class Lane(NamedTuple):
    """A program on a timeline; times are microseconds since the start of the record."""

    program: str
    first: int
    last: int
    marks: tuple[tuple[int, str, str], ...]  # time, kind, text


class Activity(NamedTuple):
    """The summary of records, by subject."""

    programs: tuple[Item, ...]
    syscalls: tuple[Item, ...]
    refused_syscalls: tuple[Item, ...]
    read: tuple[Item, ...]
    written: tuple[Item, ...]
    refused_files: tuple[Item, ...]
    absent_files: tuple[Item, ...]
    network: tuple[Item, ...]
    capabilities: tuple[Item, ...]
    refused_capabilities: tuple[Item, ...]
    peaks: tuple[Item, ...]
    other: tuple[Item, ...]
    seconds: float
    lost: int

    @property
    def destinations(self) -> tuple[Item, ...]:
        """Return the addresses that it connected to or sent to."""
        return tuple(i for i in self.network if i.detail.split(" ")[0] in ("connect", "send"))

    @property
    def ports(self) -> tuple[Item, ...]:
        """Return the addresses that it listened on."""
        return tuple(i for i in self.network if i.detail.split(" ")[0] == "listen")


class _Table:
    """Items of one kind, by subject and detail."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[int, dict[str, None]]] = {}

    def add(self, subject: str, occurrences: int, program: str, detail: str = "") -> None:
        total, programs = self._rows.get((subject, detail), (0, {}))
        programs[program] = None
        self._rows[subject, detail] = (total + occurrences, programs)

    def items(self) -> tuple[Item, ...]:
        """Return the items, the most frequent first."""
        rows = [
            Item(subject, total, tuple(programs), detail)
            for (subject, detail), (total, programs) in self._rows.items()
        ]
        return tuple(sorted(rows, key=lambda item: (-item.occurrences, item.subject, item.detail)))


def summarize(records: Iterable[Record]) -> Activity:
    """Return the summary of records."""
    tables = {name: _Table() for name in _TABLES}
    seconds, lost = 0.0, 0
    for record in records:
        for entry in record.entries.values():
            name, subject, detail = _place(record, entry)
            tables[name].add(subject, entry.count, program(record, entry.program), detail)
        if record.end is not None:
            seconds += record.end.duration / 1e6
            for loss in record.end.losses.values():
                lost += loss.occurrences + loss.texts + loss.entries
    items = {name: table.items() for name, table in tables.items()}
    return Activity(**items, seconds=seconds, lost=lost)


def program(record: Record, number: int) -> str:
    """Return the name of a program: its path, and the name that it was called by."""
    path, name = program_of(record, number)
    if not path:
        return f"({name or 'unknown'})"
    return f"{path} ({name})" if name else path


def _place(record: Record, entry: Entry) -> tuple[str, str, str]:
    """Return the table, subject and detail of an entry."""
    kind: str = entry.kind
    layer = f"{entry.errno} by {entry.layer}" if entry.layer else entry.errno
    if kind == "syscall":
        call = entry.syscall + (f" ({entry.abi})" if entry.abi else "")
        refused = bool(entry.layer) or entry.errno in ("EPERM", "EACCES")
        return ("refused_syscalls", call, layer) if refused else ("syscalls", call, "")
    if kind == "exec":
        return "programs", program(record, entry.executed), entry.errno
    if kind == "change":
        return "written", entry.path, f"by {entry.syscall} {entry.errno}".strip()
    if kind == "file":
        modes = entry.mode.split(",")
        written = "write" in modes or "create" in modes
        return ("written" if written else "read"), entry.path, entry.mode
    if kind == "file-refused":
        absent = entry.errno in ("ENOENT", "ENOTDIR")
        return ("absent_files" if absent else "refused_files"), entry.path, layer
    if kind == "dns":
        words = ("name", entry.query_type, entry.protocol)
        return "network", entry.name or "(malformed)", " ".join(word for word in words if word)
    if kind == "resource":
        limit = f" of {quantity(entry.limit, entry.unit)}" if entry.limit else ""
        peak = f"{quantity(entry.value, entry.unit)}{limit}" if entry.value else ""
        return "peaks", entry.resource, peak
    if kind in _NETWORK:
        address = f"[{entry.address}]" if ":" in entry.address else entry.address
        subject = f"{address}:{entry.port}" if entry.port else address or entry.family
        words = (kind, entry.protocol, entry.errno)
        return "network", subject, " ".join(word for word in words if word)
    if kind == "capability":
        return "capabilities", entry.capability, _scope(entry)
    if kind == "capability-refused":
        return "refused_capabilities", entry.capability, _scope(entry)
    return "other", describe(entry), kind


def quantity(value: int, unit: str) -> str:
    """Return a number with its unit; bytes and microseconds in larger units if there are many."""
    if unit.startswith("bytes"):
        rest = unit.removeprefix("bytes")
        for name in ("bytes", "KiB", "MiB", "GiB"):
            if value < 10240 or name == "GiB":
                return f"{value} {name}{rest}"
            value //= 1024
    if unit == "microseconds" and value >= 10_000:
        return f"{value / 1e6:.2f} seconds"
    return f"{value} {unit}".strip()


def _scope(entry: Entry) -> str:
    """Return the system call that asked for a capability, and where it would have effect."""
    where = f"in the {entry.namespace}'s user namespace" if entry.namespace else ""
    return f"{entry.syscall} {where}".strip()


def describe(entry: Entry) -> str:
    """Return the texts of an entry in one line; also of a kind that is newer than this page."""
    words = []
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if name not in _PLAIN and isinstance(value, str | int) and value and value is not True:
            words.append(str(value))
    return " ".join(words)


def lanes(record: Record) -> tuple[Lane, ...]:
    """Return the lanes of a timeline: programs by their first entry, the busiest ones if many.

    Marks are executed programs, connections, refusals and written files.
    """
    spans: dict[str, list[Entry]] = {}
    for entry in record.entries.values():
        spans.setdefault(program(record, entry.program), []).append(entry)
    busiest = sorted(spans, key=lambda name: -sum(e.count for e in spans[name]))[:MAX_LANES]
    rows = [
        Lane(
            name,
            min(entry.first for entry in spans[name]),
            max(max(entry.first, entry.last) for entry in spans[name]),
            tuple(_marks(record, spans[name])),
        )
        for name in busiest
    ]
    return tuple(sorted(rows, key=lambda lane: lane.first))


def _marks(record: Record, entries: Sequence[Entry]) -> Iterable[tuple[int, str, str]]:
    for entry in entries:
        name, subject, detail = _place(record, entry)
        shown = {
            "programs": "exec",
            "network": "network",
            "written": "write",
            "refused_files": "refused",
            "refused_syscalls": "refused",
            "refused_capabilities": "refused",
        }.get(name)
        if shown is not None:
            yield entry.first, shown, f"{detail} {subject}".strip()
