"""The recorder's mechanism: eBPF programs at raw tracepoints.

They work on cgroup v1 and v2 and need BTF (/sys/kernel/btf/vmlinux), root and Linux 6.1. The
programs count in tables of the kernel and send each key once, with its text, when it first occurs.
A container that does something a million times causes one event.

``bpf/record.bpf.o`` is compiled from ``bpf/record.bpf.c`` by ``scripts/bpf``.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib import resources

from jaula.errors import JaulaError, NotAuthorized, Unsupported, system_error_text
from jaula.features.record import ebpf_events, libbpf
from jaula.features.record.ebpf_events import Counts, Event, Key
from jaula.features.record.libbpf import BTF, RingBuffer, traced_events
from jaula.features.record.record_document import OUTSIDE
from jaula.features.record.recorded_cgroup import Cgroup
from jaula.features.record.resource import Peak

NAME = "ebpf-tracepoints"
_MONOTONIC_COARSE = 6  # clock of include/uapi/linux/time.h; its resolution is a tick
_MACHINES = ("x86_64",)
_MARK, _FLUSH = "mark_processes", "flush_processes"  # iterators
_SOURCES = {  # program: what the header calls it
    "fork": "sched_process_fork",
    "exec": "sched_process_exec",
    "exited": "sched_process_exit",
    "sys_enter": "sys_enter",
    "sys_exit": "sys_exit",
    "socket_state": "inet_sock_set_state",
    "signal_generate": "signal_generate",
    "capable": "cap_capable",
    "sent": "sock_send_length",
    "ring_submit": "io_uring_submit_req",
    "removed": "cgroup_rmdir",
}
_OPTIONAL = {  # events that not every kernel has, by their name in the kernel
    "capable": "cap_capable",  # Linux 6.14
    "sent": "sock_send_length",  # Linux 6.3
    "ring_submit": "io_uring_submit_req",  # Linux 6.3
    "removed": "cgroup_rmdir",
}


class EbpfTracer:
    """The loaded programs. ``sources`` are the events that this kernel has."""

    name = NAME
    not_recorded: tuple[str, ...] = ()
    unseen: tuple[str, ...] = (
        "results and addresses of operations of io_uring",
        *OUTSIDE,
        "paths and addresses of the source process, if another thread changed them",
    )

    def __init__(
        self,
        cgroup: Cgroup,
        cgroup_id: int,
        receive: Callable[[Event], None],
        *,
        container: str = "",
    ) -> None:
        """Load the programs, and attach none yet.

        If ``cgroup_id`` is 0, the first cgroup with the id ``container`` in its name is recorded:
        a container that is not started has none.

        :raises Unsupported: when this host cannot run them.
        :raises NotAuthorized: when the user is not root.
        """
        if os.geteuid() != 0:
            raise NotAuthorized("a record needs root", hint="run the command with sudo")
        if platform.machine() not in _MACHINES:
            raise Unsupported(f"no records on {platform.machine()}, only on {_MACHINES[0]}")
        if not os.path.exists(BTF):
            raise Unsupported(f"this kernel has no {BTF}", hint="it needs CONFIG_DEBUG_INFO_BTF")
        self._running = cgroup_id != 0
        data = resources.files("jaula.features.record").joinpath("bpf/record.bpf.o").read_bytes()
        optional = traced_events(_OPTIONAL)
        config = ebpf_events.CONFIG.pack(
            cgroup_id,
            int.from_bytes(os.urandom(8), "little"),
            int.from_bytes(os.urandom(8), "little"),
            cgroup.hierarchy,
            "sent" in optional,
            int(time.clock_getres(_MONOTONIC_COARSE) * 1e9),
            container.encode(),
        )
        try:
            self._object = libbpf.load(data, config, optional)
        except OSError as error:
            raise _unsupported(error) from error
        if "ring_submit" not in optional:
            self.unseen = ("all operations of io_uring", *self.unseen[1:])
        self.sources = tuple(
            name
            for program, name in _SOURCES.items()
            if program not in _OPTIONAL or program in optional
        )
        try:
            self._ring = RingBuffer(
                self._object.maps["events"], lambda each: receive(ebpf_events.decode_event(each))
            )
        except OSError as error:
            self._object.close()
            raise _unsupported(error) from error

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait."""
        return self._ring.fileno()

    def started_process(self) -> int:
        """Return the pid of the first process of a container that had no cgroup, 0: none yet.

        :raises JaulaError: when it cannot be read.
        """
        try:
            value = self._object.maps[".data.started"].lookup(bytes(4)) or b""
        except OSError as error:
            raise JaulaError(
                system_error_text("the record cannot be read from the kernel", error)
            ) from error
        return ebpf_events.decode_started(value)

    def attach(self) -> None:
        """Start to record. Processes that exist are marked after the programs are attached.

        In a container that is not started they are steps of the runtime, and are not marked: the
        record begins when one of them executes the container's program.

        :raises Unsupported: when the kernel refuses.
        """
        try:
            for program, name in _SOURCES.items():
                if name in self.sources:
                    self._object.attach(program)
            if self._running:
                self._object.iterate(self._object.attach(_MARK))
        except OSError as error:
            raise _unsupported(error) from error

    def consume(self) -> None:
        """Receive the waiting events.

        :raises JaulaError: when they cannot be read.
        """
        try:
            self._ring.consume()
        except OSError as error:
            raise JaulaError(
                system_error_text("the record cannot be read from the kernel", error)
            ) from error

    def detach(self) -> None:
        """Stop to record. The tables stay, with what the threads have counted.

        :raises JaulaError: when they cannot be read.
        """
        self._object.detach()
        try:
            self._object.iterate(self._object.attach(_FLUSH))
        except OSError as error:
            raise JaulaError(
                system_error_text("the record cannot be read from the kernel", error)
            ) from error
        self._object.detach()

    def counts(self) -> Iterator[tuple[Key, Counts]]:
        """Yield the numbers of every key.

        :raises JaulaError: when they cannot be read.
        """
        try:
            for table in dict.fromkeys(ebpf_events.TABLES.values()):
                for key, value in self._object.maps[table].items():
                    yield ebpf_events.decode_key(key), ebpf_events.decode_counts(value)
        except OSError as error:
            raise JaulaError(
                system_error_text("the record cannot be read from the kernel", error)
            ) from error

    def losses(self) -> dict[int, tuple[int, int, int]]:
        """Return lost occurrences, events and texts by kind.

        :raises JaulaError: when they cannot be read.
        """
        try:
            table = self._object.maps["losses"]
            found = {
                kind: table.lookup(kind.to_bytes(4, "little")) or bytes(24)
                for kind in ebpf_events.TABLES
            }
        except OSError as error:
            raise JaulaError(
                system_error_text("the record cannot be read from the kernel", error)
            ) from error
        return {kind: ebpf_events.decode_losses(value) for kind, value in found.items()}

    def peaks(self) -> dict[str, Peak] | None:
        """Return the peaks of memory and processes that the container's cgroup was removed with.

        None: this kernel does not tell them.

        :raises JaulaError: when they cannot be read.
        """
        if _SOURCES["removed"] not in self.sources:
            return None
        try:
            value = self._object.maps[".data.peaks"].lookup(bytes(4))
        except OSError as error:
            raise JaulaError(
                system_error_text("the record cannot be read from the kernel", error)
            ) from error
        return ebpf_events.decode_peaks(value or b"")

    def close(self) -> None:
        """Unload everything."""
        self._object.detach()
        self._ring.close()
        self._object.close()


def _unsupported(error: OSError) -> Unsupported:
    return Unsupported(
        f"this kernel does not run the recorder's eBPF programs: {error.strerror}",
        hint="it needs root, BTF and Linux 6.1",
    )
