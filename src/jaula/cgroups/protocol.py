"""What a cgroup driver and a cgroup can do: the contract that v1 and v2 both keep.

The suite in ``tests/integration/cgroups/test_contract.py`` is run against every driver. Units are
the kernel's unless a name says otherwise: bytes, nanoseconds, counts. ``None`` is "no limit".

Paths are those of the OCI ``linux.cgroupsPath``: ``/<parent>/<id>``, below the mount point of each
hierarchy. A driver never touches a cgroup that lies outside the path it was given, with the
exception of ancestors, which it makes and for which it switches controllers on.

How a process gets in:

* v2: ``directory_fd()`` and ``CLONE_INTO_CGROUP``; the process is born there.
* v1: ``entry()`` opens one file per hierarchy; the new process itself, while it has one thread,
  writes ``0`` to each (:func:`jaula.cgroups.attach.enter`). This takes 0.15 ms. ``add(pid)`` from
  outside takes a lock that waits for an RCU grace period when nobody took it lately: 7-15 ms.
* A cgroup namespace has its root at the cgroup its creator is in, so it is unshared after entry
  (v1) or made in the same ``clone3`` (v2).
"""

from __future__ import annotations

from typing import Protocol, Self

import msgspec

from jaula.spec.runtime import Resources


class PressureLine(msgspec.Struct, frozen=True):
    """Percent of time over the last 10, 60 and 300 seconds; microseconds in all."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total: int = 0


class Pressure(msgspec.Struct, frozen=True):
    """Time in which some, or all, tasks waited for a resource."""

    some: PressureLine = PressureLine()
    full: PressureLine = PressureLine()


class CpuStats(msgspec.Struct, frozen=True):
    """Nanoseconds since the cgroup was made; periods are those of the CFS quota."""

    usage: int = 0
    user: int = 0
    system: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0
    by_cpu: tuple[int, ...] = ()  # these three by number of the CPU, v1 only
    by_cpu_user: tuple[int, ...] = ()
    by_cpu_system: tuple[int, ...] = ()
    pressure: Pressure | None = None


class MemoryCounter(msgspec.Struct, frozen=True):
    """Bytes, and how often the limit was hit."""

    usage: int = 0
    limit: int | None = None
    peak: int = 0
    failures: int = 0


class MemoryStats(msgspec.Struct, frozen=True):
    """Bytes. ``details`` is the kernel's ``memory.stat``; keys differ between v1 and v2."""

    usage: int = 0
    limit: int | None = None
    peak: int = 0
    swap: int = 0
    failures: int = 0
    inactive_file: int = 0  # page cache that the kernel would drop first; Docker subtracts it
    details: dict[str, int] = {}
    with_swap: MemoryCounter = MemoryCounter()  # memory and swap together
    kernel: MemoryCounter = MemoryCounter()
    kernel_tcp: MemoryCounter = MemoryCounter()
    events: dict[str, int] = {}  # memory.events, v2 only
    pressure: Pressure | None = None


class PidsStats(msgspec.Struct, frozen=True):
    current: int = 0
    limit: int | None = None


class IoEntry(msgspec.Struct, frozen=True):
    """One device's counters; bytes and operations."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    read_operations: int = 0
    write_operations: int = 0


class IoCount(msgspec.Struct, frozen=True):
    """One number of one device; ``operation`` is ``Read``, ``Write``, ``Total`` and so on."""

    major: int
    minor: int
    operation: str
    value: int


class BlkioStats(msgspec.Struct, frozen=True):
    """``lists`` are v1's counters with what is below, by the name of their file."""

    devices: tuple[IoEntry, ...] = ()
    lists: dict[str, tuple[IoCount, ...]] = {}
    pressure: Pressure | None = None

    @property
    def read_bytes(self) -> int:
        return sum(entry.read_bytes for entry in self.devices)

    @property
    def write_bytes(self) -> int:
        return sum(entry.write_bytes for entry in self.devices)


class HugetlbStats(msgspec.Struct, frozen=True):
    """Bytes, and how often the limit was hit."""

    usage: int = 0
    peak: int = 0
    failures: int = 0


class CpusetStats(msgspec.Struct, frozen=True):
    """Numbers of CPUs and memory nodes; ``flags`` are v1's other files by their name."""

    cpus: tuple[int, ...] = ()
    mems: tuple[int, ...] = ()
    flags: dict[str, int] = {}


class Stats(msgspec.Struct, frozen=True):
    """One look at a cgroup; a controller that the host lacks counts zero."""

    cpu: CpuStats = CpuStats()
    memory: MemoryStats = MemoryStats()
    pids: PidsStats = PidsStats()
    blkio: BlkioStats = BlkioStats()
    oom_kills: int = 0
    hugetlb: dict[str, HugetlbStats] = {}  # by page size
    cpuset: CpusetStats = CpusetStats()


class Cgroup(Protocol):
    """One cgroup, on every hierarchy that matters. Holds descriptors: close it, or use ``with``."""

    path: str

    def apply(self, resources: Resources) -> tuple[str, ...]:
        """Write the limits; returns warnings for what the kernel lacks and one may live without.

        Raises ``InvalidRequest`` where the kernel refuses a value, ``Conflict`` where the current
        use forbids it, ``Unsupported`` where a controller that a limit needs is not there.
        """
        ...

    def add(self, pid: int) -> None:
        """Move a process with all its threads in. On v1 see the module's docstring for the cost."""
        ...

    def entry(self) -> tuple[int, ...]:
        """Descriptors for :func:`jaula.cgroups.attach.enter`; the caller closes them."""
        ...

    def settle(self) -> None:
        """Say that the container's process is in; what kept an empty cgroup alive may go.

        Only systemd removes a cgroup for being empty, so elsewhere this does nothing. ``close``
        does it too.
        """
        ...

    def directory_fd(self) -> int | None:
        """The directory for ``CLONE_INTO_CGROUP``, owned by this object; None on v1."""
        ...

    def stats(self, *, detailed: bool = False) -> Stats:
        """What is used now.

        ``detailed`` adds what takes many more files: by CPU, by kind of memory and of block I/O,
        huge pages, the cpuset and pressure.
        """
        ...

    def pids(self) -> tuple[int, ...]:
        """Every process in it and in cgroups below it, in the reader's pid namespace, sorted."""
        ...

    def freeze(self) -> None:
        """Stop every process; returns when they have stopped, raises ``Unavailable`` after 2 s."""
        ...

    def thaw(self) -> None:
        """Let every process go on; no error where none is stopped."""
        ...

    def frozen(self) -> bool:
        """Whether every process has stopped."""
        ...

    def kill(self) -> None:
        """SIGKILL to every process, those that are being forked included; thaws a frozen cgroup."""
        ...

    def destroy(self, timeout: float = 2.0) -> None:
        """Remove it and the cgroups below; waits ``timeout`` seconds for dying processes.

        No error if it is gone already. Raises ``Conflict`` naming the processes that stay.
        """
        ...

    def oom_kills(self) -> int:
        """Processes killed for want of memory so far."""
        ...

    def peak_memory(self) -> int:
        """The most memory ever in use at once, bytes; 0 where the kernel does not record it."""
        ...

    def oom_fd(self) -> int | None:
        """A descriptor that becomes readable when memory runs out; the caller closes it.

        It may also wake for less (v1: removal of the cgroup; v2: any event of memory.events), so
        a reader drains it with ``os.read`` and compares ``oom_kills()``. None where the kernel
        cannot tell.
        """
        ...

    def limits(self) -> dict[str, str]:
        """The kernel's own limit files with their text, for proof; those that exist only."""
        ...

    def locations(self) -> dict[str, str]:
        """Controller name to host directory."""
        ...

    def close(self) -> None:
        """Close the descriptors; the cgroup stays."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class CgroupDriver(Protocol):
    """The host's cgroup tree. Cheap to make; holds a descriptor per hierarchy that forks share."""

    name: str  # 'cgroupfs'
    version: int  # 1 or 2

    def create(self, path: str) -> Cgroup:
        """Make an empty cgroup; one left over without processes is made anew.

        Raises ``Conflict`` where it holds processes, ``InvalidRequest`` for a bad path.
        """
        ...

    def open(self, path: str) -> Cgroup:
        """An existing cgroup; raises ``NotFound``."""
        ...

    def controllers(self) -> frozenset[str]:
        """Names as v2 has them (``io`` for blkio), with ``devices`` and ``freezer``."""
        ...

    def features(self) -> frozenset[str]:
        """What limits work: of :data:`jaula.cgroups.features.FEATURES`."""
        ...

    def warnings(self) -> tuple[str, ...]:
        """One line for each feature that is missing, in the words of ``docker info``."""
        ...
