"""Samples of the resource usage of many containers, with a bounded history.

Counters of the kernel become rates here, once for all viewers. Sources: the cgroup of the container
(:mod:`jaula.cgroups`), its pressure files (PSI), and ``/proc/<pid>/net/dev``.
"""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaula.cgroups.cgroup_driver import CgroupDriver
from jaula.cgroups.v2 import pressure
from jaula.engine.containers.container_stats import interface_counters
from jaula.errors import JaulaError, NotFound
from jaula.features.verify.model.host_process import parse_cgroups

FIELDS = (
    "cpu",  # percent of one CPU
    "throttled",  # percent of the time in which the CPU quota stopped the container
    "memory",  # bytes, without the page cache that the kernel reclaims first
    "limit",  # bytes; 0 without a limit
    "pids",
    "pids_limit",  # 0 without a limit
    "received",  # bytes per second
    "sent",
    "read",
    "written",
    "oom",  # processes that the OOM killer has killed, in all
    "pressure_cpu",  # percent of the last 10 seconds in which a task waited; -1 if not counted
    "pressure_memory",
    "pressure_io",
)
KEPT = 900  # samples of one container
_FORMAT = struct.Struct(f"d{len(FIELDS)}f")


class Counters:
    """The totals of one sample; ``time`` is monotonic, in seconds."""

    __slots__ = ("cpu", "read", "received", "sent", "throttled", "time", "written")

    def __init__(
        self,
        time: float,
        cpu: int,
        throttled: int,
        received: int,
        sent: int,
        read: int,
        written: int,
    ) -> None:
        self.time, self.cpu, self.throttled = time, cpu, throttled
        self.received, self.sent, self.read, self.written = received, sent, read, written


def rates(before: Counters, now: Counters) -> tuple[float, float, float, float, float, float]:
    """Return CPU and throttling in percent, and bytes per second of network and block I/O. Pure.

    The order is cpu, throttled, received, sent, read, written. A counter that began anew gives 0.
    """
    seconds = now.time - before.time
    if seconds <= 0:
        return (0.0,) * 6

    def rate(name: str) -> float:
        return float(max(0, getattr(now, name) - getattr(before, name)) / seconds)

    return (
        rate("cpu") / 1e7,
        min(100.0, rate("throttled") / 1e7),
        rate("received"),
        rate("sent"),
        rate("read"),
        rate("written"),
    )


class ContainerSampler:
    """The cgroup of one container, and its history. It holds no descriptor between samples."""

    def __init__(self, driver: CgroupDriver, pid: int, network_pid: int) -> None:
        """Find the cgroup of the process.

        ``network_pid`` has the container's network, 0 if no process is known that has it.

        :raises OSError: when the container has exited.
        :raises NotFound: when its cgroup is gone.
        """
        self.pid, self.network_pid = pid, network_pid
        self.history: deque[bytes] = deque(maxlen=KEPT)
        self._before: Counters | None = None
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            paths = [path for _, path in parse_cgroups(file.read())]
        deepest = max(paths, key=len, default="/")
        if deepest == "/":
            raise NotFound("the container has no cgroup of its own")
        self._driver, self._path = driver, deepest
        with driver.open(deepest) as cgroup:
            directories = cgroup.locations()
        self._pressure = next(
            (path for path in directories.values() if os.path.exists(f"{path}/cpu.pressure")), ""
        )

    def take(self, unix_time: float) -> Sequence[float]:
        """Take a sample, keep it, and return the values of :data:`FIELDS`.

        :raises OSError: when the container has exited.
        :raises NotFound: when its cgroup is gone.
        """
        with self._driver.open(self._path) as cgroup:
            stats = cgroup.stats()
        networks = interface_counters(self.network_pid).values() if self.network_pid else ()
        now = Counters(
            time.monotonic(),
            stats.cpu.usage,
            stats.cpu.throttled,
            sum(each["rx_bytes"] for each in networks),
            sum(each["tx_bytes"] for each in networks),
            stats.blkio.read_bytes,
            stats.blkio.write_bytes,
        )
        cpu, throttled, received, sent, read, written = rates(self._before or now, now)
        self._before = now
        memory = stats.memory
        values = (
            round(cpu, 2),
            round(throttled, 2),
            max(0, memory.usage - memory.inactive_file),
            memory.limit or 0,
            stats.pids.current,
            stats.pids.limit or 0,
            round(received),
            round(sent),
            round(read),
            round(written),
            stats.oom_kills,
            *read_pressure(self._pressure),
        )
        self.history.append(_FORMAT.pack(unix_time, *values))
        return values


def read_pressure(directory: str) -> tuple[float, float, float]:
    """Return the pressure of CPU, memory and I/O in a directory of cgroup v2, or of /proc.

    The values are percent of the last 10 seconds, -1 if the kernel does not count them.
    """

    def read(name: str) -> str:
        path = f"{directory}/{name}"
        if directory == "/proc/pressure":
            path = f"{directory}/{name.removesuffix('.pressure')}"
        try:
            with open(path, encoding="ascii") as file:
                return file.read()
        except OSError as error:
            raise NotFound(f"{path}: {error.strerror}") from None

    if not directory:
        return -1.0, -1.0, -1.0
    found = []
    for resource in ("cpu", "memory", "io"):
        try:
            counted = pressure.stats(read, resource)
        except NotFound:
            counted = None
        found.append(-1.0 if counted is None else counted.some.avg10)
    return found[0], found[1], found[2]


class Samples:
    """The samplers of all running containers, by container id."""

    def __init__(self, driver: CgroupDriver | None) -> None:
        """Take samples from the cgroups of ``driver``; without one no container has a sample."""
        self._containers: dict[str, ContainerSampler] = {}
        self._driver = driver
        self._cpus = os.cpu_count() or 1
        self._memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def follow(self, running: Mapping[str, tuple[int, int]]) -> None:
        """Begin with new containers and forget those that have ended.

        Values are the pid of a container's init, and that of a process with its network or 0.
        """
        for key, each in list(self._containers.items()):
            if running.get(key) != (each.pid, each.network_pid):
                del self._containers[key]
        if self._driver is None:
            return
        for key, pids in running.items():
            if key not in self._containers:
                try:
                    self._containers[key] = ContainerSampler(self._driver, *pids)
                except (OSError, JaulaError):
                    continue  # it has exited, or has no cgroup

    def take(self) -> dict[str, Any]:
        """Take a sample of each container and return the document of all of them."""
        now = time.time()
        containers = {}
        for key, sampler in list(self._containers.items()):
            try:
                containers[key] = sampler.take(now)
            except (OSError, JaulaError):
                del self._containers[key]  # it has exited
        return {
            "Type": "stats",
            "Time": round(now, 3),
            "Containers": containers,
            "Host": {
                "Cpus": self._cpus,
                "Memory": self._memory,
                "Pressure": read_pressure("/proc/pressure"),
            },
        }

    def history(self, ids: Iterable[str], fields: Sequence[str], points: int) -> dict[str, Any]:
        """Return the kept samples of containers, at most ``points`` of each; all for no ``ids``.

        Each row has the Unix time and the values of ``fields``. Several samples become one row:
        their largest value, so that no peak is lost.
        """
        columns = [FIELDS.index(name) + 1 for name in fields if name in FIELDS]
        chosen = list(ids) or list(self._containers)
        result = {}
        for key in chosen:
            if (sampler := self._containers.get(key)) is not None:
                rows = [_FORMAT.unpack(packed) for packed in sampler.history]
                result[key] = [
                    [round(row[0], 3), *(round(row[c], 2) for c in columns)]
                    for row in thin(rows, points)
                ]
        return {"Fields": ["time", *(FIELDS[c - 1] for c in columns)], "Containers": result}


def thin(rows: Sequence[tuple[float, ...]], points: int) -> list[tuple[float, ...]]:
    """Return at most ``points`` rows: of each group its last time and largest values. Pure."""
    if len(rows) <= points:
        return list(rows)
    size = -(-len(rows) // points)
    groups = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [
        (group[-1][0], *(max(c) for c in list(zip(*group, strict=True))[1:])) for group in groups
    ]
