"""Drift: what a running container does that its records, or its image, do not have.

Decisions are pure functions of an entry and a :class:`Baseline`. Executed files are compared by
:mod:`jaula.features.record.executed_files`, which has the files themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from jaula.features.record import ebpf_events
from jaula.features.record.compare_records import program_of
from jaula.features.record.ebpf_events import Event
from jaula.features.record.record_document import Entry, Header, Program
from jaula.features.record.record_reader import Record

KINDS = (
    "program", "file", "library", "memory", "connect", "listen", "capability", "set-uid", "lost",
)  # fmt: skip
MAX_DRIFTS = 4096  # that are reported; further ones are counted
_MAX_PROGRAMS = 8192
_MAX_WAITING = 8192  # events whose program is not known yet
_ADDRESSES = {"connect": "connect", "send": "connect", "listen": "listen", "bind": "listen"}
_FAMILIES = frozenset({"inet", "inet6", "unix"})
SET_ID = frozenset(
    {"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid",
     "setgroups", "setuid32", "setgid32", "setreuid32", "setregid32", "setresuid32",
     "setresgid32", "setfsuid32", "setfsgid32", "setgroups32"}
)  # fmt: skip


class Drift(NamedTuple):
    """A deviation. ``program`` is the path of the program that caused it, '' if it is unknown.

    ``digest`` is the SHA-256 of an executed file in hex, if it was read.
    """

    kind: str
    subject: str
    program: str
    detail: str
    digest: str = ""


class Baseline(NamedTuple):
    """Content of the records. ``compared`` are the kinds of drift that they can tell."""

    programs: frozenset[str]
    files: frozenset[str]
    addresses: frozenset[tuple[str, str]]  # kind of drift, address
    capabilities: frozenset[tuple[str, str]]  # program, capability
    set_ids: frozenset[tuple[str, str]]  # program, system call
    compared: frozenset[str]


def baseline_of(records: Sequence[Record], kinds: Callable[[Header], Iterable[str]]) -> Baseline:
    """Return what the records have together. ``kinds`` says what the mechanism of one records.

    Pure. A kind is compared if one of the records can have it.
    """
    programs: set[str] = set()
    files: set[str] = set()
    addresses: set[tuple[str, str]] = set()
    capabilities: set[tuple[str, str]] = set()
    set_ids: set[tuple[str, str]] = set()
    compared: set[str] = set()
    for record in records:
        if record.header is not None:
            compared.update(kinds(record.header))
        programs.update(program.path for program in record.programs.values())
        for entry in record.entries.values():
            program = program_of(record, entry.program)[0]
            if entry.kind == "file":
                files.add(entry.path)
            elif entry.kind == "capability":
                capabilities.add((program, entry.capability))
            elif is_set_id(entry):
                set_ids.add((program, entry.syscall))
            elif (address := address_of(entry)) is not None:
                addresses.add(address)
    return Baseline(
        frozenset(programs), frozenset(files), frozenset(addresses), frozenset(capabilities),
        frozenset(set_ids), frozenset(compared),
    )  # fmt: skip


def is_set_id(entry: Entry) -> bool:
    """Return whether an entry is a successful change of a user or group id. Pure."""
    return entry.kind == "syscall" and entry.syscall in SET_ID and not entry.errno


def address_of(entry: Entry) -> tuple[str, str] | None:
    """Return the kind of drift and the address of an entry, None if it has no comparable address.

    Pure. Internet addresses have their port; port 0 is any port. The client's side of a connection
    has a port that the kernel chose, so only addresses that were asked for are compared.
    """
    kind = _ADDRESSES.get(entry.kind)
    if kind is None or entry.family not in _FAMILIES or entry.lost_text or not entry.address:
        return None
    if entry.family == "unix":
        return (kind, f"unix {entry.address}") if kind == "connect" else None
    if entry.kind == "bind" and (entry.protocol == "tcp" or not entry.port):
        return None  # a TCP socket that is bound listens later, or is a client
    host = f"[{entry.address}]" if ":" in entry.address else entry.address
    return kind, f"{entry.protocol or 'ip'} {host}:{entry.port}"


def deviation(
    entry: Entry, program: str, executed: Program | None, baseline: Baseline
) -> Drift | None:
    """Return how an entry deviates from the records. Pure.

    ``baseline`` has the kind ``program``, or no execution is passed.
    """
    if entry.kind == "exec" and executed is not None:
        if executed.path in baseline.programs:
            return None
        return Drift("program", shown_path(executed), program, "not in the record")
    if entry.kind == "capability":
        if "capability" in baseline.compared and (
            (program, entry.capability) not in baseline.capabilities
        ):
            detail = f"for {entry.syscall}, in the {entry.namespace}'s user namespace"
            return Drift("capability", entry.capability, program, detail)
        return None
    if is_set_id(entry):
        if "set-uid" in baseline.compared and (program, entry.syscall) not in baseline.set_ids:
            return Drift("set-uid", entry.syscall, program, "not in the record")
        return None
    address = address_of(entry)
    if address is None or address[0] not in baseline.compared or address in baseline.addresses:
        return None
    return Drift(*address, program, entry.errno or "not in the record")


def shown_path(program: Program) -> str:
    """Return the path of a program; one in no mount namespace (memfd) is ``detached``. Pure."""
    return f"{program.path} (detached)" if program.detached else program.path


class Observed(NamedTuple):
    """An entry with the path of its program, and for an execution the executed program."""

    entry: Entry
    program: str
    executed: Program | None


class Observer:
    """Decodes events of a mechanism. Bounded: what does not fit is counted in ``lost``."""

    def __init__(self, syscall_name: Callable[[int, str], str]) -> None:
        self.lost = 0
        self._syscall_name = syscall_name
        self._programs: dict[int, Program] = {}
        self._waiting: list[Event] = []

    def receive(self, event: Event) -> list[Observed]:
        """Return what is known by an event."""
        key = event.key
        if key.kind != ebpf_events.PROGRAM:
            if key.kind not in ebpf_events.TABLES:
                return []
            if self._is_ready(event):
                return [self._observed(event)]
            if len(self._waiting) < _MAX_WAITING:
                self._waiting.append(event)
            else:
                self.lost += 1
            return []
        if key.subject in self._programs:
            return []
        if len(self._programs) >= _MAX_PROGRAMS:
            self.lost += 1
            return []
        self._programs[key.subject] = ebpf_events.program(key, event.text)
        ready = [each for each in self._waiting if self._is_ready(each)]
        if ready:
            self._waiting = [each for each in self._waiting if not self._is_ready(each)]
        return [self._observed(each) for each in ready]

    def _is_ready(self, event: Event) -> bool:
        key = event.key
        if key.kind == ebpf_events.EXEC and not self._is_known(key.subject):
            return False
        return self._is_known(key.program)

    def _is_known(self, number: int) -> bool:
        return number in self._programs or number in (
            ebpf_events.UNKNOWN_PROGRAM,
            ebpf_events.UNLISTED_PROGRAM,
        )

    def _observed(self, event: Event) -> Observed:
        key = event.key
        program = self._programs.get(key.program)
        entry = ebpf_events.entry(
            key, event.text, syscall_name=self._syscall_name, line_of=lambda number: 0
        )
        executed = self._programs.get(key.subject) if key.kind == ebpf_events.EXEC else None
        return Observed(entry, program.path if program else "", executed)


class Reporter:
    """Passes each deviation on once, and limits what a hostile container can cause.

    ``print_drift`` is called for the first :data:`MAX_DRIFTS`; ``emit``, which costs the engine
    something, for a share of ten in a second. ``count`` counts all, ``unlisted`` those that were
    not printed, and ``unemitted`` those without an event.
    """

    RATE, BURST = 10.0, 50.0  # events in a second, and at once

    def __init__(
        self,
        print_drift: Callable[[Drift], None],
        emit: Callable[[Drift], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.count = self.unlisted = self.unemitted = 0
        self._print = print_drift
        self._emit = emit
        self._clock = clock
        self._known: set[tuple[str, ...]] = set()
        self._tokens = self.BURST
        self._filled = clock()

    def is_known(self, drift: Drift) -> bool:
        """Return whether a deviation was reported."""
        return _identity(drift) in self._known

    def report(self, drift: Drift) -> bool:
        """Report a deviation; return whether it is a new one."""
        key = _identity(drift)
        if key in self._known:
            return False
        self.count += 1
        if len(self._known) >= MAX_DRIFTS:
            self.unlisted += 1
            return True
        self._known.add(key)
        self._print(drift)
        now = self._clock()
        self._tokens = min(self.BURST, self._tokens + (now - self._filled) * self.RATE)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            self._emit(drift)
        else:
            self.unemitted += 1
        return True


def _identity(drift: Drift) -> tuple[str, ...]:
    """Return what makes two deviations one: a file with another content is another one."""
    if drift.kind in ("program", "file", "library"):
        return (drift.kind, drift.subject, drift.digest)
    if drift.kind in ("connect", "listen"):
        return (drift.kind, drift.subject)
    return (drift.kind, drift.subject, drift.program)
