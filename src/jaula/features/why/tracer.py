"""The tracer: loads the eBPF programs and receives what the kernel refuses to a container.

The container is named by its id, which is in the name of its cgroup. So the programs can be
attached before the container starts, and its first process is followed from its first instruction.
They need BTF, root and Linux 6.1.
"""

from __future__ import annotations

import errno
import os
import platform
import resource
from importlib import resources

from jaula.errors import JaulaError, NotAuthorized, Unsupported, system_error_text
from jaula.features.record import libbpf
from jaula.features.record.libbpf import BTF, RingBuffer, traced_events
from jaula.features.record.syscall_names import SyscallNames
from jaula.features.why import refusal
from jaula.features.why.refusal import Event

_VICTIM = "victim"
_OPTIONAL = {  # programs and their events; before Linux 6.9 that of the victim has no task
    "capable": "cap_capable",  # Linux 6.14
    _VICTIM: "mark_victim",
}
_ITERATOR = "mark_threads"
_PROGRAMS = (
    "fork", "exec", "sys_enter", "sys_exit", "signal_generate", "process_exit",
    "socket_state", *_OPTIONAL,
)  # fmt: skip
MAX_EVENTS = 16384
_ID_SIZE = 64  # bytes, as in container.bpf.h


class RefusalTracer:
    """The loaded programs. ``events`` are those received so far, in their order."""

    def __init__(self, container_id: str) -> None:
        """Load the programs, and attach none yet.

        :raises Unsupported: when this host cannot run them.
        :raises NotAuthorized: when the user is not root.
        """
        if os.geteuid() != 0:
            raise NotAuthorized("jaula why needs root to trace", hint="run the command with sudo")
        if platform.machine() != "x86_64":
            raise Unsupported(f"jaula why cannot trace on {platform.machine()}, only on x86_64")
        if not os.path.exists(BTF):
            raise Unsupported(f"this kernel has no {BTF}", hint="it needs CONFIG_DEBUG_INFO_BTF")
        self._names = SyscallNames()
        self.events: list[Event] = []
        self.omitted = 0  # events beyond MAX_EVENTS
        data = resources.files("jaula.features.why").joinpath("bpf/refusals.bpf.o").read_bytes()
        identity = container_id.encode("ascii").ljust(_ID_SIZE, b"\0")[:_ID_SIZE]
        optional = list(traced_events(_OPTIONAL))
        while True:
            try:
                self._object = libbpf.load(data, identity, optional)
                break
            except OSError as error:
                if _VICTIM not in optional or error.errno not in (errno.EACCES, errno.EINVAL):
                    raise _unsupported(error) from error
                optional.remove(_VICTIM)
        self.capabilities = "capable" in optional
        self._attached = [name for name in _PROGRAMS if name not in _OPTIONAL or name in optional]
        try:
            self._ring = RingBuffer(self._object.maps["events"], self._receive)
        except OSError as error:
            self._object.close()
            raise _unsupported(error) from error

    def _receive(self, data: bytes) -> None:
        if len(self.events) >= MAX_EVENTS:
            self.omitted += 1
        else:
            self.events.append(refusal.decode(data, self._names, resource.getpagesize()))

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait."""
        return self._ring.fileno()

    def attach(self, *, running: bool = True) -> None:
        """Start to trace. Processes that exist are marked after the programs are attached.

        In a container that is not ``running`` they are steps of the runtime, and are not marked:
        the first process is, when it executes the container's program.

        :raises Unsupported: when the kernel refuses.
        """
        try:
            for program in self._attached:
                self._object.attach(program)
            if running:
                self._object.iterate(self._object.attach(_ITERATOR))
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
                system_error_text("the refusals cannot be read from the kernel", error)
            ) from error

    def counts(self) -> refusal.Counts:
        """Return how often each refusal occurred.

        :raises JaulaError: when the kernel's table cannot be read.
        """
        try:
            return refusal.Counts(self._object.maps["refusals"].items(), self._names)
        except OSError as error:
            raise JaulaError(
                system_error_text("the refusals cannot be read from the kernel", error)
            ) from error

    def lost(self) -> int:
        """Return the number of refusals that were not received.

        :raises JaulaError: when the kernel's table cannot be read.
        """
        try:
            value = self._object.maps["lost"].lookup(bytes(4)) or bytes(8)
        except OSError as error:
            raise JaulaError(
                system_error_text("the refusals cannot be read from the kernel", error)
            ) from error
        return int.from_bytes(value, "little") + self.omitted

    def detach(self) -> None:
        """Stop to trace. The tables stay."""
        self._object.detach()

    def close(self) -> None:
        """Unload everything."""
        self._object.detach()
        self._ring.close()
        self._object.close()


def _unsupported(error: OSError) -> Unsupported:
    return Unsupported(
        f"this kernel does not run the eBPF programs of jaula why: {error.strerror}",
        hint="it needs root, BTF and Linux 6.1",
    )
