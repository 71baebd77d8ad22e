"""The recorder: turns events of the kernel into lines of a record until it is stopped.

Memory and file are bounded: the kernel's tables have a fixed size, a key is known here at most
once, and the lines of each table have a limit. What does not fit is counted in the last line.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec

from jaula import __version__
from jaula.features.record import ebpf_events, mechanism
from jaula.features.record.ebpf_events import Counts, Event, Key
from jaula.features.record.mechanism import Target, Tracer
from jaula.features.record.record_document import (
    UNKNOWN,
    UNLISTED,
    VERSION,
    Container,
    End,
    Entry,
    Header,
    Kernel,
    Loss,
    Program,
    Total,
)
from jaula.features.record.record_writer import RecordWriter
from jaula.features.record.recorded_cgroup import Cgroup, directories
from jaula.features.record.resource import ResourceSampler
from jaula.features.record.syscall_names import SyscallNames
from jaula.kernel.process_calls import pidfd_open

FLUSH = 1.0  # seconds between two writes
SAMPLE = 0.25  # seconds between two samples of the cgroup's files
REMOVAL = 2.0  # seconds to wait for the removal of a cgroup that was never sampled


class Ledger:
    """The entries of one record: which keys have a line, and which wait for a program's line.

    ``start`` is in nanoseconds since boot. Pure except for the writer.
    """

    def __init__(
        self, writer: RecordWriter, start: int, syscall_name: Callable[[int, str], str]
    ) -> None:
        self._writer = writer
        self._start = start
        self._syscall_name = syscall_name
        self._programs: dict[int, int] = {
            ebpf_events.UNKNOWN_PROGRAM: UNKNOWN,
            ebpf_events.UNLISTED_PROGRAM: UNLISTED,
        }
        self._lines: dict[Program, int] = {}
        self._entries: dict[Key, int] = {}  # 0: left out, its group is full
        self._waiting: dict[Key, Event] = {}
        self.omitted: dict[int, int] = {}  # entries by kind
        self.omitted_occurrences: dict[int, int] = {}

    def receive(self, event: Event) -> None:
        """Write the line of a first occurrence. An event may arrive twice."""
        key = event.key
        if key.kind == ebpf_events.PROGRAM:
            self._add_program(key, event.text)
        elif key.kind in ebpf_events.TABLES and key not in self._entries:
            if all(number in self._programs for number in _programs_of(key)):
                self._add(key, event.text, event.time)
            else:  # the event of the program was lost, and will be sent again
                self._waiting[key] = event

    def _add_program(self, key: Key, text: bytes) -> None:
        if key.subject in self._programs:
            return
        program = ebpf_events.program(key, text)
        if program not in self._lines:
            self._lines[program] = self._writer.append(program, _group(key)) or UNLISTED
        self._programs[key.subject] = self._lines[program]
        ready = [
            event
            for event in self._waiting.values()
            if all(number in self._programs for number in _programs_of(event.key))
        ]
        for event in ready:
            del self._waiting[event.key]
            self._add(event.key, event.text, event.time)

    def _add(self, key: Key, text: bytes | None, first: int) -> None:
        entry = ebpf_events.entry(
            key,
            text,
            syscall_name=self._syscall_name,
            line_of=lambda number: self._programs.get(number, UNLISTED),
        )
        moment = self._time(first)
        n = self._writer.append(
            msgspec.structs.replace(entry, first=moment, last=moment), _group(key)
        )
        self._entries[key] = n
        if not n:
            self.omitted[key.kind] = self.omitted.get(key.kind, 0) + 1

    def _time(self, nanoseconds: int) -> int:
        return max(0, nanoseconds - self._start) // 1000

    def finish(self, counts: Iterator[tuple[Key, Counts]]) -> None:
        """Write the final numbers. Keys whose event was lost get their line now."""
        totals = []
        for key, numbers in counts:
            if key.kind == ebpf_events.PROGRAM:
                continue
            if key not in self._entries:
                waiting = self._waiting.pop(key, None)
                self._add(key, waiting.text if waiting else None, numbers.first)
            if not self._entries[key]:
                omitted = self.omitted_occurrences
                omitted[key.kind] = omitted.get(key.kind, 0) + numbers.occurrences
            else:
                totals.append((self._entries[key], numbers))
        for n, numbers in sorted(totals):
            if numbers.occurrences > 1:
                self._writer.append(
                    Total(
                        entry=n,
                        count=numbers.occurrences,
                        first=self._time(numbers.first),
                        last=max(self._time(numbers.first), self._time(numbers.last)),
                    )
                )


def _group(key: Key) -> str:
    return ebpf_events.LOSSES[key.kind]


def _programs_of(key: Key) -> tuple[int, ...]:
    if key.kind in (ebpf_events.EXEC, ebpf_events.SIGNAL):
        return key.program, key.subject
    return (key.program,)


def record(
    container: Container,
    cgroup: Cgroup | None,
    cgroup_id: int,
    writer: RecordWriter,
    *,
    pid: int,
    exit_fd: int,
    stop_fd: int,
    seconds: float | None,
    started: Callable[[], None],
    mechanism_name: str = mechanism.AUTO,
    listener: str = "",
    refused: Callable[[str], None] | None = None,
) -> End:
    """Record until the time is over or a descriptor is readable, and return the last line.

    ``exit_fd`` is a pidfd of the container's first process ``pid``. If both ``cgroup_id`` and
    ``pid`` are 0, the container is not started yet, and ``exit_fd`` is readable when it is removed
    without a start. ``stop_fd`` is readable when the user ends the record. ``started`` is called
    when the programs are attached. ``listener`` is the socket that a container which is not started
    was created with. ``refused`` receives why ``auto`` did not take a better mechanism, by line.

    :raises JaulaError: when this host cannot record, or the file cannot be written.
    """
    events: list[Event] = []
    target = Target(pid, cgroup, cgroup_id, container.id, listener)
    tracer = mechanism.open_tracer(mechanism_name, target, events.append, refused=refused)
    with (
        closing(tracer),
        closing(_Process(container.id, pid, exit_fd, has_cgroup=cgroup is not None)) as process,
    ):
        start = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        writer.append(_header(container, cgroup, tracer, from_start=not pid))
        ledger = Ledger(writer, start, SyscallNames())
        tracer.attach()
        started()
        reason = _follow(tracer, ledger, events, writer, process, start, stop_fd, seconds)
        process.add_peaks(tracer)
        tracer.detach()
        tracer.consume()
        _drain(events, ledger)
        ledger.finish(tracer.counts())
        duration = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - start) // 1000
        for entry in process.resources(duration):
            writer.append(entry)
        end = End(reason=reason, duration=duration, losses=_losses(tracer.losses(), ledger))
    writer.append(end)
    writer.flush()
    return end


class _Process:
    """The first process of the container: its exit, and the figures of its cgroup."""

    def __init__(self, container: str, pid: int, exit_fd: int, *, has_cgroup: bool) -> None:
        self._has_cgroup = has_cgroup
        self._container = container
        self._new = pid == 0
        self._pid = pid
        self._sampler: ResourceSampler | None = None
        self._pidfd = -1
        self.exit_fd = exit_fd
        self.reason = "container exited" if pid else "container removed before its start"

    @property
    def begun(self) -> bool:
        """Return whether the container has started."""
        return self._pid != 0

    def begin(self, pid: int) -> bool:
        """Take the process of a container that has started; False if it has exited already."""
        self._pid = pid
        self.reason = "container exited"
        try:
            self._pidfd = pidfd_open(pid)
        except OSError:
            return False
        self.exit_fd = self._pidfd
        self.sample(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        # otherwise the pid is that of another process
        return self._sampler is not None or not self._has_cgroup

    def sample(self, now: int) -> None:
        """Read the figures; ``now`` is in nanoseconds since boot."""
        if self._sampler is None and self._pid:
            found = directories(self._pid, self._container)
            self._sampler = ResourceSampler(found, new=self._new) if found else None
        if self._sampler is not None:
            self._sampler.sample(now)

    def add_peaks(self, tracer: Tracer) -> None:
        """Take the peaks of a cgroup that was removed: the last sample may be older.

        A container can end before its first sample. Then its cgroup is removed soon.
        """
        peaks = tracer.peaks()
        if self._sampler is None and self._pid and peaks is not None:
            deadline = time.monotonic() + REMOVAL
            while len(peaks) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
                peaks = tracer.peaks() or {}
            self._sampler = ResourceSampler({}, new=self._new)
        if self._sampler is not None:
            self._sampler.add_peaks(peaks or {})

    def resources(self, duration: int) -> list[Entry]:
        """Return the entries of the figures."""
        return [] if self._sampler is None else self._sampler.entries(0, duration)

    def close(self) -> None:
        """Close the descriptor of the process."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _follow(
    tracer: Tracer,
    ledger: Ledger,
    events: list[Event],
    writer: RecordWriter,
    process: _Process,
    start: int,
    stop_fd: int,
    seconds: float | None,
) -> str:
    poller = select.poll()
    for descriptor in (tracer.fileno(), process.exit_fd, stop_fd):
        poller.register(descriptor, select.POLLIN)
    deadline = None if seconds is None else start + int(seconds * 1e9)
    flush = sample = start
    process.sample(start)
    while True:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if deadline is not None and now >= deadline:
            process.sample(now)
            return "duration"
        wait = SAMPLE if deadline is None else min(SAMPLE, (deadline - now) / 1e9)
        ready = {descriptor for descriptor, _ in poller.poll(max(1, wait * 1000))}
        if stop_fd in ready or process.exit_fd in ready or now - sample >= SAMPLE * 1e9:
            sample = now
            process.sample(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        tracer.consume()
        if events and not process.begun:
            poller.unregister(process.exit_fd)
            if not process.begin(tracer.started_process()):
                return process.reason
            poller.register(process.exit_fd, select.POLLIN)
        _drain(events, ledger)
        if now - flush >= FLUSH * 1e9:
            flush = now
            writer.flush()
        if stop_fd in ready:
            return "signal"
        if process.exit_fd in ready:
            return process.reason


def _drain(events: list[Event], ledger: Ledger) -> None:
    for event in events:
        ledger.receive(event)
    events.clear()


def _losses(lost: dict[int, tuple[int, int, int]], ledger: Ledger) -> dict[str, Loss]:
    result: dict[str, Loss] = {}
    for kind, (occurrences, events, texts) in lost.items():
        occurrences += ledger.omitted_occurrences.get(kind, 0)
        entries = ledger.omitted.get(kind, 0)
        if occurrences or events or texts or entries:
            name = ebpf_events.LOSSES[kind]
            before = result.get(name, Loss())
            result[name] = Loss(
                occurrences=before.occurrences + occurrences,
                events=before.events + events,
                texts=before.texts + texts,
                entries=before.entries + entries,
            )
    return result


def _header(
    container: Container, cgroup: Cgroup | None, tracer: Tracer, *, from_start: bool
) -> Header:
    host = os.uname()
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip()
    except OSError:
        boot_id = ""
    now, rest = divmod(time.time_ns(), 1_000_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return Header(
        version=VERSION,
        time=f"{moment}.{rest // 1000:06d}Z",
        recorder=f"jaula {__version__}",
        kernel=Kernel(
            release=host.release, version=host.version, machine=host.machine, boot_id=boot_id
        ),
        container=container,
        mechanism=tracer.name,
        sources=tracer.sources,
        not_recorded=tracer.not_recorded,
        unseen=tracer.unseen,
        cgroup=f"{cgroup.controller or 'unified'}:{cgroup.path}" if cgroup else "",
        from_start=from_start,
    )
