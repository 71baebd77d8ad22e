"""The mechanisms of a record, and which one this host can use.

A mechanism sends events in the form of :mod:`jaula.features.record.ebpf_events`, so the record is
the same document whichever one is used. The header names it, and lists what it does not record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from jaula.errors import JaulaError, Unsupported
from jaula.features.record import ebpf, libbpf
from jaula.features.record.ebpf_events import Counts, Event, Key
from jaula.features.record.fanotify_tracer import (
    FANOTIFY,
    PROC,
    FanotifyTracer,
    ProcTracer,
    process_lister,
)
from jaula.features.record.record_document import Header
from jaula.features.record.recorded_cgroup import Cgroup
from jaula.features.record.resource import Peak
from jaula.features.record.seccomp_tracer import SECCOMP, SeccompTracer
from jaula.features.record.syscall_names import SyscallNames

AUTO, EBPF = "auto", "ebpf"
NAMES = (AUTO, EBPF, FANOTIFY, PROC)  # of a container that runs
_EBPF_KERNEL, _EBPF_MACHINE = (6, 1), "x86_64"
START_NAMES = (AUTO, EBPF, SECCOMP)  # of a container that is started for its record


class Target(NamedTuple):
    """The container: a process of it, its cgroup with its id, and its own id.

    ``pid`` and ``cgroup_id`` are 0 for a container that is not started. ``cgroup`` is None for a
    container of a rootless engine without cgroups. ``listener`` is the path at which a container
    that is not started will find its seccomp agent.
    """

    pid: int
    cgroup: Cgroup | None
    cgroup_id: int
    container: str
    listener: str = ""


class Tracer(Protocol):
    """A mechanism that is ready. It records between :meth:`attach` and :meth:`detach`."""

    name: str
    sources: tuple[str, ...]
    not_recorded: tuple[str, ...]
    unseen: tuple[str, ...]

    def fileno(self) -> int: ...
    def started_process(self) -> int: ...
    def attach(self) -> None: ...
    def consume(self) -> None: ...
    def detach(self) -> None: ...
    def counts(self) -> Iterator[tuple[Key, Counts]]: ...
    def losses(self) -> dict[int, tuple[int, int, int]]: ...
    def peaks(self) -> dict[str, Peak] | None: ...
    def close(self) -> None: ...


Receiver = Callable[[Event], None]
Opener = Callable[[Target, Receiver], Tracer]


def open_tracer(
    name: str,
    target: Target,
    receive: Receiver,
    *,
    refused: Callable[[str], None] | None = None,
) -> Tracer:
    """Return the mechanism ``name``; for ``auto`` the first one that this host can use.

    ``refused`` is called with one line for each mechanism before it, with the reason.

    :raises Unsupported: when this host cannot use it.
    :raises NotAuthorized: when the user may not.
    """
    if name != AUTO:
        return _OPENERS[name](target, receive)
    refusals = []
    for each, opener in _OPENERS.items():
        try:
            tracer = opener(target, receive)
        except JaulaError as error:
            refusals.append(f"{each}: {error.message}")
            continue
        if refused is not None:
            for line in refusals:
                refused(line)
        return tracer
    raise Unsupported(
        "no mechanism can record this container: " + "; ".join(refusals),
        hint="run the command with sudo, on the engine's host",
    )


def needs_listener(name: str) -> bool:
    """Return whether a container has to be created with a seccomp agent for its record.

    The programs of eBPF are not loaded for that, which takes a second: a kernel that has all they
    need and still refuses them is an error later.
    """
    if name != AUTO:
        return name == SECCOMP
    major, _, rest = os.uname().release.partition(".")
    minor = rest.partition(".")[0]
    version = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
    if os.geteuid() != 0 or version < _EBPF_KERNEL or not os.path.exists(libbpf.BTF):
        return True
    try:
        libbpf.library()
    except Unsupported:
        return True
    return os.uname().machine != _EBPF_MACHINE


def _ebpf(target: Target, receive: Receiver) -> Tracer:
    if target.cgroup is None:
        raise Unsupported("a container without a cgroup cannot be recorded by eBPF")
    return ebpf.EbpfTracer(target.cgroup, target.cgroup_id, receive, container=target.container)


def _seccomp(target: Target, receive: Receiver) -> Tracer:
    if not target.listener:
        raise Unsupported("only a container that is started for it can be recorded by seccomp")
    return SeccompTracer(target.listener, target.container, receive, SyscallNames())


def _fanotify(target: Target, receive: Receiver) -> Tracer:
    tracer = FanotifyTracer(_process(target), process_lister(target.pid, target.cgroup), receive)
    try:
        tracer.fileno()
    except BaseException:
        tracer.close()
        raise
    return tracer


def _proc(target: Target, receive: Receiver) -> Tracer:
    pid = _process(target)
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError as error:
        raise Unsupported(f"process {pid} cannot be read: {error.strerror}") from error
    return ProcTracer(process_lister(pid, target.cgroup), receive)


def _process(target: Target) -> int:
    if not target.pid:
        raise Unsupported("a container that is not started can be recorded by eBPF or seccomp only")
    return target.pid


_OPENERS: dict[str, Opener] = {
    EBPF: _ebpf,
    SECCOMP: _seccomp,
    FANOTIFY: _fanotify,
    PROC: _proc,
}


_ALL_KINDS = frozenset({"program", "connect", "listen", "capability", "set-uid"})
_BASELINE_KINDS = {
    ebpf.NAME: _ALL_KINDS,
    SECCOMP: frozenset({"program", "connect", "listen"}),
    FANOTIFY: frozenset({"program", "listen"}),
    PROC: frozenset[str](),
}


def baseline_kinds(header: Header) -> frozenset[str]:
    """Return the kinds of drift that a record of this mechanism can tell. Pure.

    A connection between two samples is in no record, and would be a drift later.
    """
    return _BASELINE_KINDS.get(header.mechanism, frozenset())


def observed_kinds(name: str) -> frozenset[str]:
    """Return the kinds of drift that the mechanism of this name can observe. Pure."""
    return _ALL_KINDS if name == ebpf.NAME else frozenset({"program", "connect", "listen"})
