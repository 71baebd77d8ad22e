"""Interfaces of a cgroup driver and a cgroup, which v1 and v2 implement.

The suite in ``tests/integration/cgroups/test_contract.py`` runs against every driver. Units are the
kernel's unless a name says otherwise: bytes, nanoseconds, counts. ``None`` means no limit.

Paths are those of the OCI ``linux.cgroupsPath``: ``/<parent>/<id>``, below the mount point of each
hierarchy. A driver does not touch a cgroup outside the path it is passed, except ancestors, which
it creates and on which it enables controllers.

How a process enters a cgroup:

* v2: ``directory_fd()`` and ``CLONE_INTO_CGROUP``; the process starts in the cgroup.
* v1: ``open_attach_fds()`` opens one file per hierarchy. The new process itself, while it has one
  thread, writes ``0`` to each (:func:`jaula.cgroups.cgroup_attach.enter`). This takes 0.15 ms.
  ``add(pid)`` from outside takes a lock that waits for an RCU grace period if it was not taken
  recently: 7-15 ms. The v2 tree of a hybrid host is entered as on v2, since its file takes that
  lock too.
* The root of a cgroup namespace is the cgroup of its creator, so the namespace is unshared after
  the process has entered (v1) or created in the same ``clone3`` (v2).
"""

from __future__ import annotations

from typing import Protocol, Self

import msgspec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources


class PressureLine(msgspec.Struct, frozen=True):
    """Percent of time over the last 10, 60 and 300 seconds; ``total`` in microseconds."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total: int = 0


class Pressure(msgspec.Struct, frozen=True):
    """Time in which some, or all, tasks waited for a resource."""

    some: PressureLine = PressureLine()
    full: PressureLine = PressureLine()


class CpuStats(msgspec.Struct, frozen=True):
    """CPU time in nanoseconds since the cgroup was created; periods are those of the CFS quota."""

    usage: int = 0
    user: int = 0
    system: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0
    by_cpu: tuple[int, ...] = ()  # these three by CPU number, v1 only
    by_cpu_user: tuple[int, ...] = ()
    by_cpu_system: tuple[int, ...] = ()
    pressure: Pressure | None = None


class MemoryCounter(msgspec.Struct, frozen=True):
    """Bytes, and the number of failures to allocate because of the limit."""

    usage: int = 0
    limit: int | None = None
    peak: int = 0
    failures: int = 0


class MemoryStats(msgspec.Struct, frozen=True):
    """Memory use in bytes; keys of ``details`` (``memory.stat``) differ between v1 and v2."""

    usage: int = 0
    limit: int | None = None
    peak: int = 0
    swap: int = 0
    failures: int = 0
    inactive_file: int = 0  # page cache that the kernel reclaims first; Docker subtracts it
    details: dict[str, int] = {}
    with_swap: MemoryCounter = MemoryCounter()  # memory and swap together
    kernel: MemoryCounter = MemoryCounter()
    kernel_tcp: MemoryCounter = MemoryCounter()
    events: dict[str, int] = {}  # memory.events, v2 only
    pressure: Pressure | None = None


class PidsStats(msgspec.Struct, frozen=True):
    """The number of tasks; ``refused`` counts the forks that failed because of the limit."""

    current: int = 0
    limit: int | None = None
    refused: int = 0


class IoEntry(msgspec.Struct, frozen=True):
    """Bytes and operations of one device."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    read_operations: int = 0
    write_operations: int = 0


class IoCount(msgspec.Struct, frozen=True):
    """One counter of one device; ``operation`` is ``Read``, ``Write``, ``Total`` and so on."""

    major: int
    minor: int
    operation: str
    value: int


class BlkioStats(msgspec.Struct, frozen=True):
    """Block I/O. ``lists`` are v1's recursive counters by file name."""

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
    """Bytes, and the number of failures to allocate because of the limit."""

    usage: int = 0
    peak: int = 0
    failures: int = 0


class CpusetStats(msgspec.Struct, frozen=True):
    """CPU and memory node numbers; ``flags`` are v1's other files by name."""

    cpus: tuple[int, ...] = ()
    mems: tuple[int, ...] = ()
    flags: dict[str, int] = {}


class Stats(msgspec.Struct, frozen=True):
    """Statistics of a cgroup at one moment; a controller that the host lacks counts zero."""

    cpu: CpuStats = CpuStats()
    memory: MemoryStats = MemoryStats()
    pids: PidsStats = PidsStats()
    blkio: BlkioStats = BlkioStats()
    oom_kills: int = 0
    hugetlb: dict[str, HugetlbStats] = {}  # by page size
    cpuset: CpusetStats = CpusetStats()


class Usage(msgspec.Struct, frozen=True):
    """The usage of a cgroup, and its processes as :meth:`Cgroup.pids` returns them.

    ``stats`` has CPU time, memory, tasks, block I/O, OOM kills and on v2 pressure. Limits other
    than that of tasks are absent.
    """

    stats: Stats = Stats()
    pids: tuple[int, ...] = ()


class Cgroup(Protocol):
    """One cgroup in all hierarchies. Holds descriptors: close it, or use ``with``."""

    path: str

    def apply(self, resources: Resources) -> tuple[str, ...]:
        """Write the limits; return a warning for each optional limit that the kernel lacks.

        :raises InvalidRequest: when the kernel rejects a value.
        :raises Conflict: when the current usage does not allow a limit.
        :raises Unsupported: when a limit needs a controller that is not available.
        """
        ...

    def add(self, pid: int) -> None:
        """Move a process with all its threads into the cgroup; the module has its cost on v1."""
        ...

    def open_attach_fds(self, *, cloned: bool = False) -> tuple[int, ...]:
        """Open descriptors for :func:`jaula.cgroups.cgroup_attach.enter`; the caller closes them.

        ``cloned`` says that the process is created in ``directory_fd()``.
        """
        ...

    def release_pause_process(self) -> None:
        """End the process that keeps an empty cgroup alive; call it after the container entered.

        Only systemd removes an empty cgroup, so other drivers do nothing. ``close`` does it too.
        """
        ...

    def directory_fd(self) -> int | None:
        """Return the v2 directory for ``CLONE_INTO_CGROUP``, owned by this object, or None."""
        ...

    def stats(self, *, detailed: bool = False) -> Stats:
        """Return the current usage.

        ``detailed`` adds values that need many more files: by CPU, by kind of memory and of block
        I/O, huge pages, the cpuset and pressure.
        """
        ...

    def pids(self) -> tuple[int, ...]:
        """Return every process in the cgroup and below, in the reader's pid namespace, sorted."""
        ...

    def freeze(self, *, wait: bool = True) -> None:
        """Freeze every process and wait for it.

        Without ``wait`` a process that a debugger has stopped is frozen when that lets it go.

        :raises Unavailable: when processes still run after 2 seconds.
        """
        ...

    def thaw(self) -> None:
        """Thaw every process; a cgroup that is not frozen is not an error."""
        ...

    def frozen(self) -> bool:
        """Return whether every process is frozen."""
        ...

    def kill(self) -> None:
        """Send SIGKILL to every process, including concurrent forks; thaws a frozen cgroup."""
        ...

    def destroy(self, timeout: float = 2.0) -> None:
        """Remove the cgroup and those below; wait ``timeout`` seconds for exiting processes.

        A cgroup that does not exist is not an error.

        :raises Conflict: when processes remain; the error names them.
        """
        ...

    def oom_kills(self) -> int:
        """Return the number of processes that the OOM killer has killed."""
        ...

    def is_oom(self, kills: int) -> bool:
        """Return whether a readable :meth:`oom_fd` of a running container means OOM.

        ``kills`` are those that are known. On v1 the notification itself says it: it comes before
        the kill, and without one if the OOM killer is disabled.
        """
        ...

    def peak_memory(self) -> int:
        """Return the peak memory usage in bytes; 0 if the kernel does not record it."""
        ...

    def oom_fd(self) -> int | None:
        """Return a descriptor that becomes readable on OOM, or None; the caller closes it.

        It may also become readable for other reasons (v1: removal of the cgroup; v2: any event of
        memory.events), so a reader drains it with ``os.read`` and compares ``oom_kills()``. None if
        the kernel has no notification.
        """
        ...

    def limits(self) -> dict[str, str]:
        """Return the text of each limit file that exists, as evidence."""
        ...

    def locations(self) -> dict[str, str]:
        """Return the host directory of each controller."""
        ...

    def close(self) -> None:
        """Close the descriptors; the cgroup stays."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class CgroupDriver(Protocol):
    """The host's cgroup hierarchies. Cheap to create; forks share its descriptors."""

    name: str  # 'cgroupfs'
    version: int  # 1 or 2

    def create(self, path: str) -> Cgroup:
        """Create an empty cgroup; a leftover one without processes is replaced.

        :raises Conflict: when the cgroup holds processes.
        :raises InvalidRequest: when the path is not valid.
        """
        ...

    def open(self, path: str) -> Cgroup:
        """Open an existing cgroup.

        :raises NotFound: when the cgroup does not exist.
        """
        ...

    def usage(self, path: str) -> Usage:
        """Return the usage of a cgroup from as few files as possible, for reads of many cgroups.

        A cgroup that does not exist has no processes, or is an error.

        :raises NotFound: when the cgroup does not exist.
        """
        ...

    def controllers(self) -> frozenset[str]:
        """Return controller names as on v2 (``io`` for blkio), with ``devices`` and ``freezer``."""
        ...

    def features(self) -> frozenset[str]:
        """Return the supported limits, as keys of :data:`jaula.cgroups.cgroup_limits.FEATURES`."""
        ...

    def warnings(self) -> tuple[str, ...]:
        """Return a line for each missing feature, in the words of ``docker info``."""
        ...
