"""The mechanisms of a record, and which one this host can use.

A mechanism sends events in the form of :mod:`jaula.record.ebpf_events`, so the record is the same
document whichever one is used. The header names it, and lists what it does not record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from jaula.errors import Unsupported
from jaula.record import ebpf
from jaula.record.cgroup import Cgroup
from jaula.record.document import Header
from jaula.record.ebpf_events import Counts, Event, Key

AUTO, EBPF = "auto", "ebpf"
NAMES = (AUTO, EBPF)


class Target(NamedTuple):
    """The container: a process of it, its cgroup with its id, and its own id.

    ``pid`` and ``cgroup_id`` are 0 for a container that is not started.
    """

    pid: int
    cgroup: Cgroup
    cgroup_id: int
    container: str


class Tracer(Protocol):
    """A mechanism that is ready. It records between :meth:`attach` and :meth:`detach`."""

    name: str
    sources: tuple[str, ...]
    not_recorded: tuple[str, ...]

    def fileno(self) -> int: ...
    def attach(self) -> None: ...
    def consume(self) -> None: ...
    def detach(self) -> None: ...
    def counts(self) -> Iterator[tuple[Key, Counts]]: ...
    def losses(self) -> dict[int, tuple[int, int, int]]: ...
    def close(self) -> None: ...


def open_tracer(name: str, target: Target, receive: Callable[[Event], None]) -> Tracer:
    """Return the mechanism ``name``; for ``auto`` the first one that this host can use.

    :raises Unsupported: when this host cannot use it.
    :raises NotAuthorized: when the user may not.
    """
    if name not in NAMES:
        raise Unsupported(f"no mechanism {name}", hint="must be one of " + ", ".join(NAMES))
    return ebpf.EbpfTracer(target.cgroup, target.cgroup_id, receive, container=target.container)


def drift_kinds(header: Header) -> frozenset[str]:
    """Return the kinds of drift that a record of this mechanism can have. Pure."""
    if header.mechanism == ebpf.NAME:
        return frozenset({"program", "connect", "listen", "capability", "set-uid"})
    return frozenset({"program"})
