"""The loop of ``jaula record --drift``: events and samples until it is ended."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from jaula.features.record import container_drift, ebpf_events, mechanism
from jaula.features.record.container_drift import Baseline, Drift, Observer, Reporter
from jaula.features.record.ebpf_events import Event
from jaula.features.record.executed_files import ExecutedFiles
from jaula.features.record.fanotify_tracer import process_lister
from jaula.features.record.image_files import ImageFiles
from jaula.features.record.mechanism import Target
from jaula.features.record.record_document import Program, bytes_of
from jaula.features.record.syscall_names import SyscallNames

SAMPLE = 1.0  # seconds between two samples of mapped files
_COMPARED = frozenset(
    {ebpf_events.PROGRAM, ebpf_events.EXEC, ebpf_events.ADDRESS, ebpf_events.CAPABILITY}
)
_MAX_EXECUTORS = 8192
_FILES = ("program", "file", "library")
_OF_SESSIONS = (*_FILES, "memory", "connect", "listen", "capability", "set-uid")
_DEBUG = "/.debug/"  # where the tools of a debug session are
_LAST_STEPS = 16  # which read a whole queue, while a hostile container fills it
_HOLD = 0.3  # seconds that an execution waits for the descriptor of its file


class Watched(NamedTuple):
    """How it ended: ``signal``, ``duration`` or ``container exited``; ``lost`` by source."""

    reason: str
    lost: dict[str, int]


class DriftMonitor:
    """Compares one container. ``mechanism`` and ``unmarked`` can be read after the start.

    ``debugged`` is the number of deviations of debug sessions, which are not reported.
    """

    def __init__(
        self,
        target: Target,
        image: ImageFiles,
        baseline: Baseline | None,
        mechanism_name: str,
        reporter: Reporter,
        act: Callable[[], None],
        has_session: Callable[[], bool] = lambda: False,
        compilers: Collection[str] = (),
    ) -> None:
        """Open the mechanism and mark the mounts.

        ``act`` is called after each new deviation. ``has_session`` tells whether the engine has a
        debug session in the container, or had one a moment ago. ``compilers`` are the paths of
        programs that may have executable memory without a file.

        :raises JaulaError: when this host cannot do it.
        """
        self._image = image
        self._baseline = baseline
        self._reporter = reporter
        self._act = act
        self._has_session = has_session
        self.debugged = 0
        self._observer = Observer(SyscallNames())
        self._events: list[Event] = []
        self._held: list[tuple[float, Drift]] = []
        self._programs: set[str] = set()  # that were reported
        self._executors: dict[str, str] = {}  # executed path: program
        list_processes = process_lister(target.pid, target.cgroup)
        self._tracer = mechanism.open_tracer(mechanism_name, target, self._events.append)
        try:
            self._files = ExecutedFiles(target.pid, image, baseline, list_processes, compilers)
        except BaseException:
            self._tracer.close()
            raise
        self.mechanism = self._tracer.name
        self.unmarked = self._files.unmarked

    def close(self) -> None:
        """Remove the marks and the mechanism."""
        self._files.close()
        self._tracer.close()

    def run(
        self,
        *,
        exit_fd: int,
        stop_fd: int,
        seconds: float | None,
        started: Callable[[], None],
    ) -> Watched:
        """Compare until the time is over or a descriptor is readable.

        ``exit_fd`` is a pidfd of the container's first process.

        :raises JaulaError: when events cannot be read.
        """
        self._tracer.attach()
        started()
        begin = time.monotonic()
        deadline = None if seconds is None else begin + seconds
        sample = 0.0
        poller = select.poll()
        for descriptor in (self._files.fileno(), self._tracer.fileno(), exit_fd, stop_fd):
            poller.register(descriptor, select.POLLIN)
        poller.register(self._files.mounts_fileno(), select.POLLPRI)
        while True:
            now = time.monotonic()
            self._step(now)
            if now - sample >= SAMPLE:
                sample = now
                for each in self._files.mapped():
                    self._report(each)
                self._report_lost()
            if deadline is not None and now >= deadline:
                return self._end("duration")
            wait = min(SAMPLE, _HOLD if self._held else SAMPLE)
            if deadline is not None:
                wait = min(wait, max(0.0, deadline - now))
            ready = {descriptor for descriptor, _ in poller.poll(max(1, wait * 1000))}
            if stop_fd in ready:
                return self._end("signal")
            if exit_fd in ready:
                return self._end("container exited")

    def _step(self, now: float) -> None:
        """Report the executed files, then what the mechanism has sent."""
        executed = list(self._files.executed())
        self._tracer.consume()
        events, self._events[:] = list(self._events), []
        observed = [each for event in events for each in self._observer.receive(event)]
        for each in observed:
            if each.executed is not None:
                self._add_executor(each.executed, each.program)
        for found in executed:
            program = found.program or self._executors.get(found.subject, "")
            self._report(found._replace(program=program), marked=True)
        for each in observed:
            deviation = self._deviation(each)
            if deviation is not None and deviation.kind == "program":
                self._held.append((now + _HOLD, deviation))
            elif deviation is not None:
                self._report(deviation)
        due = [each for moment, each in self._held if moment <= now]
        self._held = [(moment, each) for moment, each in self._held if moment > now]
        for deviation in due:
            self._report_program(deviation)

    def _add_executor(self, executed: Program, program: str) -> None:
        """Remember which program executed a file, under both names of a script's interpreter."""
        if len(self._executors) >= _MAX_EXECUTORS:
            self._executors.clear()
        for path in (executed.path, executed.name):
            if path:
                self._executors[path] = program

    def _deviation(self, observed: container_drift.Observed) -> Drift | None:
        baseline, executed = self._baseline, observed.executed
        if baseline is not None and (executed is None or "program" in baseline.compared):
            return container_drift.deviation(*observed, baseline)
        if executed is None or (baseline is not None and executed.path in baseline.programs):
            return None
        path = executed.path
        found = None if executed.detached else self._image.find(bytes_of(path))
        if found is not None:
            os.close(found)
            return None
        return Drift(
            "program", container_drift.shown_path(executed), observed.program, "not in the image"
        )

    def _report_program(self, each: Drift) -> None:
        """Report an execution, unless its file was reported."""
        if self._is_of_session(each):
            self.debugged += 1
        elif each.subject not in self._programs:
            self._report(each._replace(digest=self._files.digest_of(each.subject)))

    def _is_of_session(self, each: Drift) -> bool:
        """Return whether a debug session did it: its tools are on no mount of the container.

        A file that the container itself has at the same path is on a marked mount, so it was seen.
        """
        path = each.subject if each.kind in _FILES else each.program
        if not path.startswith(_DEBUG) or self._files.runs(path):
            return False
        return self._has_session()

    def _report(self, each: Drift, *, marked: bool = False) -> None:
        """Report a deviation; ``marked`` says that the file is on a mount of the container."""
        if each.kind in _OF_SESSIONS and not marked and self._is_of_session(each):
            self.debugged += 1
            return
        if each.kind == "program" and len(self._programs) < container_drift.MAX_DRIFTS:
            self._programs.add(each.subject)
        if self._reporter.report(each):
            self._act()

    def _report_lost(self) -> None:
        """Report once, by source, that something was lost: it may hide a deviation."""
        for source, number in self._lost().items():
            if number:
                self._report(Drift("lost", source, "", "events were lost, and may hide a drift"))

    def _lost(self) -> dict[str, int]:
        occurrences = sum(
            missed + texts
            for kind, (missed, _, texts) in self._tracer.losses().items()
            if kind in _COMPARED
        )
        return {
            "executed files": self._files.overflows,
            "mapped files": self._files.incomplete,
            "events": occurrences + self._observer.lost,
        }

    def _end(self, reason: str) -> Watched:
        """Report what happened before the end, and return how it ended."""
        self._tracer.detach()
        for _ in range(_LAST_STEPS):
            self._step(time.monotonic())
            if self._files.drained:
                break
        for _, each in self._held:
            self._report_program(each)
        self._held.clear()
        self._report_lost()
        return Watched(reason, {name: number for name, number in self._lost().items() if number})
