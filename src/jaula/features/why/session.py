"""A session: traces one container in a thread, and keeps what is gone when it exits.

The thread reads events, the numbers of the cgroups, the mount table, and the status of each file
that a refused call names. The decision is made at the end (:mod:`jaula.features.why.diagnosis`).
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

import msgspec

from jaula.features.why.confinement import CgroupUsage, Usage, read_mounts
from jaula.features.why.explain import EXECS, OPENS, FileFacts
from jaula.features.why.files import ContainerFiles
from jaula.features.why.lsm_denials import Denial, DenialReader
from jaula.features.why.refusal import Event, Refusal
from jaula.features.why.tracer import RefusalTracer
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.poll import readable
from jaula.spec.annotations import Ruleset

_INTERVAL = 200  # milliseconds between two readings of the numbers
_RECORD_DELAY = 0.1  # seconds
_AT_FDCWD = 0xFFFFFF9C  # -100
_WITH_FILE = OPENS | EXECS | {
    "access", "faccessat", "faccessat2", "chmod", "fchmodat", "chown", "lchown", "fchownat",
    "unlink", "unlinkat", "rename", "renameat", "mkdir", "mkdirat", "truncate", "chdir", "rmdir",
    "symlink", "symlinkat",
    "utimensat", "setxattr", "stat", "lstat", "newfstatat",
}  # fmt: skip


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Events of a session. ``facts`` are those of the event of the same position."""

    events: tuple[Event, ...]
    facts: tuple[FileFacts | None, ...]
    mounts: tuple[MountInfo, ...]
    pids: Usage
    memory: Usage
    lost: int = 0
    denials: tuple[Denial, ...] = ()
    denials_error: str = ""  # why the kernel's audit records could not be read


class Session:
    """One traced container. Use :meth:`start`, then :meth:`finish`, and :meth:`close` always."""

    def __init__(self, container_id: str, domain: Callable[[], Ruleset | None]) -> None:
        """Load the programs. ``domain`` returns the container's Landlock rules, once it runs.

        :raises JaulaError: when this host cannot trace.
        """
        self._tracer = RefusalTracer(container_id)
        self._domain = domain
        self._denials: DenialReader | None = None
        self._denials_error = ""
        try:
            self._denials = DenialReader()
        except OSError as error:
            self._denials_error = str(error.strerror)
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="why", daemon=True)
        self._facts: list[FileFacts | None] = []
        self._files: ContainerFiles | None = None
        self._usage: CgroupUsage | None = None
        self._mounts: tuple[MountInfo, ...] = ()
        self._failure: Exception | None = None

    def start(self, pid: int = 0) -> None:
        """Start to trace. ``pid`` is the container's first process, 0 if it does not run yet.

        :raises JaulaError: when the kernel refuses.
        """
        self._tracer.attach(running=bool(pid))
        if pid:
            self._open(pid)
        self._thread.start()

    def _open(self, pid: int) -> None:
        """Open what belongs to the container, through one of its processes."""
        try:
            self._files = ContainerFiles(pid, self._domain())
        except OSError:
            return  # it has exited; another event follows
        self._usage = CgroupUsage(pid)
        self._mounts = read_mounts(pid)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._tracer.fileno(), select.POLLIN)
        poller.register(self._stop_read, select.POLLIN)
        if self._denials is not None:
            poller.register(self._denials, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poller.poll(_INTERVAL)}
                self._receive()
                if self._stop_read in ready:
                    return
        except Exception as error:  # noqa: BLE001 - raised by finish
            self._failure = error

    def _receive(self) -> None:
        if self._denials is not None:
            self._denials.receive()
        self._tracer.consume()
        events = self._tracer.events
        for n in range(len(self._facts), len(events)):
            if self._files is None:
                self._open(events[n].pid)
            events[n] = _resolve(events[n])
            self._facts.append(self._facts_of(events[n]))
        if self._usage is not None:
            self._usage.read()

    def _facts_of(self, event: Event) -> FileFacts | None:
        if (
            self._files is None
            or not isinstance(event, Refusal)
            or event.syscall not in _WITH_FILE
            or not event.text
            or not (event.errno or event.syscall in OPENS)
        ):
            return None
        path = os.fsdecode(event.resolved or event.text)
        if not path.startswith("/"):
            return None
        return self._files.facts(path, execute=event.syscall in EXECS)

    def finish(self) -> Trace:
        """Stop to trace and return what was received.

        :raises JaulaError: when the events could not be read.
        """
        self._tracer.detach()
        os.write(self._stop_write, b"\0")
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        self._receive()
        if self._denials is not None and any(map(_may_be_denial, self._tracer.events)):
            # The kernel sends the records from a thread of its own.
            readable(_RECORD_DELAY, self._denials.fileno())
            self._denials.receive()
        return self.trace()

    def received(self) -> int:
        """Return the number of received events."""
        return len(self._facts)

    def trace(self) -> Trace:
        """Return what was received so far.

        :raises JaulaError: when the kernel's tables cannot be read.
        """
        facts = tuple(self._facts)  # an event is complete when its facts are known
        counts = self._tracer.counts()
        return Trace(
            events=tuple(
                msgspec.structs.replace(event, count=counts.of(event))
                if isinstance(event, Refusal)
                else event
                for event in self._tracer.events[: len(facts)]
            ),
            facts=facts,
            mounts=self._mounts,
            pids=self._usage.pids if self._usage else Usage(),
            memory=self._usage.memory if self._usage else Usage(),
            lost=self._tracer.lost(),
            denials=tuple(self._denials.denials) if self._denials else (),
            denials_error=self._denials_error,
        )

    def close(self) -> None:
        """Unload the programs and close all descriptors."""
        if self._thread.is_alive():
            os.write(self._stop_write, b"\0")
            self._thread.join()
        self._tracer.close()
        if self._denials is not None:
            self._denials.close()
        if self._files is not None:
            self._files.close()
        os.close(self._stop_read)
        os.close(self._stop_write)


def _may_be_denial(event: Event) -> bool:
    return (
        isinstance(event, Refusal)
        and event.entered
        and event.errno in ("EACCES", "EPERM")
        and not event.refused
    )


def _resolve(event: Event) -> Event:
    """Return a refusal with the absolute path of a relative one, while its process exists.

    The path is relative to the working directory or to the descriptor of an ``at`` call.
    """
    if (
        not isinstance(event, Refusal)
        or event.syscall not in _WITH_FILE
        or not event.text
        or event.text.startswith(b"/")
    ):
        return event
    directory = "cwd"
    descriptor = event.args[0] & 0xFFFFFFFF
    if event.syscall.rstrip("2").endswith("at") and descriptor < _AT_FDCWD:
        directory = f"fd/{descriptor}"
    try:
        above = os.readlink(f"/proc/{event.pid}/{directory}".encode())
    except OSError:
        return event  # it has exited
    path = os.path.normpath(os.path.join(above, event.text))
    return msgspec.structs.replace(event, resolved=path) if path.startswith(b"/") else event
