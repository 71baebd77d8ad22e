"""Mechanisms without eBPF for a container that runs: fanotify with samples of /proc, or samples.

Fanotify reports each opened and each executed file with a descriptor. Who opened it is read from
/proc afterwards: a process that has exited is known by the program that it executed before.

Facts about fanotify: the descriptor is opened by the kernel for this process, so a named pipe in
the container's file system has a reader for that moment. Devices are not marked: to open one may
have an effect.
"""

from __future__ import annotations

import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from jaula.errors import NotAuthorized, Unsupported
from jaula.features.record import ebpf_events, recorded_processes
from jaula.features.record.ebpf_events import UNKNOWN_PROGRAM, Counts, Event, Key
from jaula.features.record.fanotify_events import FanotifyGroup, path_of
from jaula.features.record.proc_sampler import ProcSampler, is_of_host
from jaula.features.record.record_document import OUTSIDE
from jaula.features.record.recorded_cgroup import Cgroup
from jaula.features.record.tables import Tables, components
from jaula.kernel import fanotify
from jaula.kernel.fanotify import Event as FileEvent

FANOTIFY, PROC = "fanotify", "proc"
SAMPLE = 0.5  # seconds between two samples
_MAX_PROCESSES = 16384  # whose program is remembered
_HEAD = 4096  # bytes of an executed file that are read
_LAST_READS = 16  # which read a whole queue, while a hostile container fills it
_PT_INTERP = 3
_WRITE = 2  # FMODE_WRITE, in the detail of a file
_NEVER_RECORDED = (
    "system calls",
    "results of calls",
    "refused files",
    "sockets without a connection",
    "capabilities that are used",
    "signals",
    "mounts",
    "accepted connections",
    "names of DNS",
)
_BETWEEN = "connections between two samples"


class ProcTracer:
    """Samples of /proc alone: what root and a rootless engine's user can read."""

    name = PROC
    sources: tuple[str, ...] = ("proc",)
    unseen: tuple[str, ...] = OUTSIDE
    not_recorded: tuple[str, ...] = (
        *_NEVER_RECORDED, _BETWEEN, "opened files", "programs that end between two samples",
    )  # fmt: skip

    def __init__(
        self, list_processes: Callable[[], list[int]], receive: Callable[[Event], None]
    ) -> None:
        self._tables = Tables(receive)
        self._sampler = ProcSampler(self._tables, list_processes, executions=True)
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._sampled = 0.0

    def fileno(self) -> int:
        """Return a descriptor that is never readable: the caller's clock decides."""
        return self._descriptor

    def started_process(self) -> int:
        """Return 0: the container runs already."""
        return 0

    def attach(self) -> None:
        """Take the first sample."""
        self._sample()

    def consume(self) -> None:
        """Take a sample, if one is due."""
        if time.monotonic() - self._sampled >= SAMPLE:
            self._sample()

    def _sample(self) -> None:
        self._sampled = time.monotonic()
        self._sampler.sample()

    def detach(self) -> None:
        """Take the last sample."""
        self._sample()

    def counts(self) -> Iterator[tuple[Key, Counts]]:
        """Yield the numbers of every key."""
        return self._tables.counts()

    def losses(self) -> dict[int, tuple[int, int, int]]:
        """Return lost occurrences, events and texts by kind."""
        lost = self._tables.losses()
        if self._sampler.skipped:
            lost[ebpf_events.EXEC] = _sum(lost, ebpf_events.EXEC, self._sampler.skipped)
        return lost

    def peaks(self) -> None:
        """Return None: this mechanism has no figures of a cgroup that was removed."""

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._descriptor)


class FanotifyTracer:
    """Opened and executed files by fanotify; the rest by samples of /proc."""

    name = FANOTIFY
    sources: tuple[str, ...] = ("fan_open", "fan_open_exec", "fan_close_write", "proc")
    unseen: tuple[str, ...] = OUTSIDE
    not_recorded: tuple[str, ...] = (
        *_NEVER_RECORDED, _BETWEEN, "the mode of files that are not written to",
        "opened directories", "files of /proc, /sys and /dev",
        "files of mounts in further mount namespaces",
    )  # fmt: skip

    def __init__(
        self,
        pid: int,
        list_processes: Callable[[], list[int]],
        receive: Callable[[Event], None],
    ) -> None:
        """Mark the mounts of the process ``pid``.

        :raises JaulaError: when that is not possible.
        """
        self._tables = Tables(receive)
        self._sampler = ProcSampler(self._tables, list_processes, executions=False)
        self._programs: OrderedDict[int, int] = OrderedDict()  # pid: program
        self._expected: dict[int, tuple[bytes, bool]] = {}  # pid: script, whether ld.so follows
        self._own = os.getpid()
        self._pid = pid
        self._sampled = 0.0
        self._detached = False
        self._group: FanotifyGroup | None = None

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait."""
        return self._open().fileno()

    def _open(self) -> FanotifyGroup:
        if self._group is None:
            mask = fanotify.FAN_OPEN | fanotify.FAN_OPEN_EXEC | fanotify.FAN_CLOSE_WRITE
            self._group = FanotifyGroup(self._pid, mask, executable=False)
        return self._group

    def started_process(self) -> int:
        """Return 0: the container runs already."""
        return 0

    def attach(self) -> None:
        """Start to record, and take the first sample."""
        self._open()
        self._sample()

    def consume(self) -> None:
        """Receive the waiting events, and take a sample if one is due.

        :raises JaulaError: when events cannot be read.
        """
        group = self._open()
        if group.mounts_changed():
            group.mark()
        for _ in range(_LAST_READS if self._detached else 1):
            for event in group.read():
                try:
                    if event.fd >= 0 and event.pid != self._own:
                        self._note(event)
                finally:
                    event.close()
            if group.drained:
                break
        if not self._detached and time.monotonic() - self._sampled >= SAMPLE:
            self._sample()

    def _sample(self) -> None:
        self._sampled = time.monotonic()
        self._sampler.sample()

    def _note(self, event: FileEvent) -> None:
        path = path_of(event.fd)
        if event.mask & fanotify.FAN_OPEN_EXEC:
            self._note_execution(event, path)
            return
        program = self._program_of(event)
        if program == UNKNOWN_PROGRAM and is_of_host(event.pid):
            return  # a step of the runtime
        if event.mask & fanotify.FAN_OPEN:
            self._tables.text(ebpf_events.FILE_OPEN, program, components(path))
        if event.mask & fanotify.FAN_CLOSE_WRITE:
            self._tables.text(ebpf_events.FILE_OPEN, program, components(path), _WRITE)

    def _note_execution(self, event: FileEvent, path: bytes) -> None:
        """Count a program. The kernel reports a script, then its interpreter, then its ld.so."""
        script, is_linker = self._expected.pop(event.pid, (b"", False))
        if is_linker:
            return
        if len(self._expected) > _MAX_PROCESSES:
            self._expected.clear()
        head = os.pread(event.fd, _HEAD, 0)
        if head.startswith(b"#!"):
            self._expected[event.pid] = (path, False)
            return
        if interpreter(head):
            self._expected[event.pid] = (b"", True)
        program = self._tables.program(path, script)
        executor = self._programs.get(event.pid, UNKNOWN_PROGRAM)
        if executor == UNKNOWN_PROGRAM:
            executor = self._parent_program(event)
        self._tables.count(Key(executor, program, ebpf_events.EXEC, 0))
        self._remember(event.pid, program)

    def _program_of(self, event: FileEvent) -> int:
        program = self._programs.get(event.pid, UNKNOWN_PROGRAM)
        if program == UNKNOWN_PROGRAM:
            program = self._sampler.program_of(event.pid)
            self._remember(event.pid, program)
        return program

    def _parent_program(self, event: FileEvent) -> int:
        try:
            with open(f"/proc/{event.pid}/stat", "rb") as file:
                parent = int(file.read(4096).rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            return UNKNOWN_PROGRAM
        known = self._programs.get(parent, UNKNOWN_PROGRAM)
        return known or self._sampler.program_of(parent)

    def _remember(self, pid: int, program: int) -> None:
        if program == UNKNOWN_PROGRAM:
            return
        self._programs[pid] = program
        self._programs.move_to_end(pid)
        if len(self._programs) > _MAX_PROCESSES:
            self._programs.popitem(last=False)

    def detach(self) -> None:
        """Take the last sample. The next call of :meth:`consume` reads the whole queue."""
        self._detached = True
        self._sample()

    def counts(self) -> Iterator[tuple[Key, Counts]]:
        """Yield the numbers of every key."""
        return self._tables.counts()

    def losses(self) -> dict[int, tuple[int, int, int]]:
        """Return lost occurrences, events and texts by kind. An overflow lost several."""
        lost = self._tables.losses()
        if self._group is not None and self._group.overflows:
            for kind in (ebpf_events.FILE_OPEN, ebpf_events.EXEC):
                lost[kind] = _sum(lost, kind, self._group.overflows)
        if self._sampler.skipped:
            lost[ebpf_events.CAPABILITY_HELD] = _sum(
                lost, ebpf_events.CAPABILITY_HELD, self._sampler.skipped
            )
        return lost

    def peaks(self) -> None:
        """Return None: this mechanism has no figures of a cgroup that was removed."""

    def close(self) -> None:
        """Remove the marks."""
        if self._group is not None:
            self._group.close()
            self._group = None


def _sum(
    lost: dict[int, tuple[int, int, int]], kind: int, occurrences: int
) -> tuple[int, int, int]:
    before = lost.get(kind, (0, 0, 0))
    return (before[0] + occurrences, before[1], before[2])


def interpreter(head: bytes) -> bool:
    """Return whether the head of an ELF file names an interpreter (``PT_INTERP``). Pure."""
    if len(head) < 64 or head[:4] != b"\x7fELF" or head[5] != 1:
        return False
    if head[4] == 2:
        offset = struct.unpack_from("<Q", head, 32)[0]
        size, count = struct.unpack_from("<HH", head, 54)
    else:
        offset = struct.unpack_from("<I", head, 28)[0]
        size, count = struct.unpack_from("<HH", head, 42)
    for number in range(count):
        start = offset + number * size
        if start + 4 > len(head):
            return False
        if struct.unpack_from("<I", head, start)[0] == _PT_INTERP:
            return True
    return False


def process_lister(pid: int, cgroup: Cgroup | None) -> Callable[[], list[int]]:
    """Return a function that lists the processes of a container.

    Without a cgroup they are those of the pid namespace of the process ``pid``.

    :raises Unsupported: when that is the namespace of this process.
    :raises NotAuthorized: when its namespaces cannot be read.
    """
    directory = recorded_processes.directory(cgroup) if cgroup is not None else ""
    if directory:
        return lambda: recorded_processes.pids(directory)
    try:
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
    except PermissionError:
        raise NotAuthorized(
            f"process {pid} is of another user", hint="run the command with sudo"
        ) from None
    except OSError as error:
        raise Unsupported(f"process {pid} cannot be read: {error.strerror}") from error
    if namespace == os.readlink("/proc/self/ns/pid"):
        raise Unsupported("a container without a cgroup that shares the host's processes")
    return lambda: recorded_processes.of_namespace(namespace)
