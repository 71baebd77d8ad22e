"""The figures of a cgroup in the form of ``events --stats``. Pure.

The names are those of runc's document, which callers decode: in ``cpu`` nanoseconds, elsewhere
bytes and counts. A limit that is none is the largest number there is in ``memory`` and 0 in
``pids``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jaula.cgroups.protocol import (
    BlkioStats,
    CpusetStats,
    CpuStats,
    IoCount,
    MemoryCounter,
    MemoryStats,
    Pressure,
    Stats,
)
from jaula.cgroups.v1.cpuset import FLAGS

_NO_LIMIT = 2**64 - 1
_LISTS = {
    "io_service_bytes": "ioServiceBytesRecursive",
    "io_serviced": "ioServicedRecursive",
    "io_queued": "ioQueueRecursive",
    "io_service_time": "ioServiceTimeRecursive",
    "io_wait_time": "ioWaitTimeRecursive",
    "io_merged": "ioMergedRecursive",
    "time": "ioTimeRecursive",
    "sectors": "sectorsRecursive",
}

Document = dict[str, Any]


def events_document(stats: Stats) -> Document:
    """The value of ``data`` in an event of type ``stats``; wants ``stats(detailed=True)``."""
    return {
        "cpu": _cpu(stats.cpu),
        "cpuset": _cpuset(stats.cpuset),
        "memory": _memory(stats.memory),
        "pids": _given({"current": stats.pids.current, "limit": stats.pids.limit}),
        "blkio": _blkio(stats.blkio),
        "hugetlb": {
            size: _given({"usage": huge.usage, "max": huge.peak}) | {"failcnt": huge.failures}
            for size, huge in stats.hugetlb.items()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _given(values: Document) -> Document:
    """Without what is zero or empty, which readers take for granted."""
    return {name: value for name, value in values.items() if value}


def _cpu(cpu: CpuStats) -> Document:
    usage = _given(
        {
            "total": cpu.usage,
            "percpu": list(cpu.by_cpu),
            "percpu_kernel": list(cpu.by_cpu_system),
            "percpu_user": list(cpu.by_cpu_user),
        }
    )
    throttling = _given(
        {
            "periods": cpu.periods,
            "throttledPeriods": cpu.throttled_periods,
            "throttledTime": cpu.throttled,
        }
    )
    document = {
        "usage": usage | {"kernel": cpu.system, "user": cpu.user},
        "throttling": throttling,
    }
    return document | _psi(cpu.pressure)


def _cpuset(cpuset: CpusetStats) -> Document:
    lists = _given({"cpus": list(cpuset.cpus), "mems": list(cpuset.mems)})
    return lists | {name: cpuset.flags.get(name, 0) for name in FLAGS}


def _memory(memory: MemoryStats) -> Document:
    details = memory.details
    usage = MemoryCounter(memory.usage, memory.limit, memory.peak, memory.failures)
    document = _given({"cache": details.get("cache", details.get("file", 0))}) | {
        "usage": _counter(usage),
        "swap": _counter(memory.with_swap),
        "kernel": _counter(memory.kernel),
        "kernelTCP": _counter(memory.kernel_tcp),
    }
    document |= _given({"raw": details}) | _psi(memory.pressure)
    return document | {"event_count": memory.events}


def _counter(counter: MemoryCounter) -> Document:
    limit = _NO_LIMIT if counter.limit is None else counter.limit
    seen = _given({"usage": counter.usage, "max": counter.peak})
    return {"limit": limit} | seen | {"failcnt": counter.failures}


def _blkio(blkio: BlkioStats) -> Document:
    lists = blkio.lists or _as_lists(blkio)
    return _given(
        {_LISTS[name]: [_count(count) for count in counts] for name, counts in lists.items()}
    ) | _psi(blkio.pressure)


def _as_lists(blkio: BlkioStats) -> dict[str, tuple[IoCount, ...]]:
    """v2 has one line a device; bytes and operations are the lists of v1 that say the same."""
    moved: list[IoCount] = []
    served: list[IoCount] = []
    for entry in blkio.devices:
        for found, reads, writes in (
            (moved, entry.read_bytes, entry.write_bytes),
            (served, entry.read_operations, entry.write_operations),
        ):
            found.append(IoCount(entry.major, entry.minor, "Read", reads))
            found.append(IoCount(entry.major, entry.minor, "Write", writes))
    return {"io_service_bytes": tuple(moved), "io_serviced": tuple(served)}


def _count(count: IoCount) -> Document:
    return _given(
        {"major": count.major, "minor": count.minor, "op": count.operation, "value": count.value}
    )


def _psi(pressure: Pressure | None) -> Document:
    return {} if pressure is None else {"psi": msgspec.to_builtins(pressure)}
