"""Statistics of a cgroup in the form of ``events --stats``. Pure.

Names and units are those of runc's document, which callers decode: nanoseconds in ``cpu``,
otherwise bytes and counts. An absent limit is the largest integer in ``memory`` and 0 in ``pids``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jaula.cgroups.cgroup_driver import (
    BlkioStats,
    CpusetStats,
    CpuStats,
    IoCount,
    MemoryCounter,
    MemoryStats,
    Pressure,
    Stats,
)
from jaula.cgroups.v1.cpuset_v1 import FLAGS

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
    """Return the ``data`` of an event of type ``stats``; needs ``stats(detailed=True)``."""
    return {
        "cpu": _cpu(stats.cpu),
        "cpuset": _cpuset(stats.cpuset),
        "memory": _memory(stats.memory),
        "pids": _non_empty({"current": stats.pids.current, "limit": stats.pids.limit}),
        "blkio": _blkio(stats.blkio),
        "hugetlb": {
            size: _non_empty({"usage": huge.usage, "max": huge.peak}) | {"failcnt": huge.failures}
            for size, huge in stats.hugetlb.items()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _non_empty(values: Document) -> Document:
    """Drop zero and empty values, which readers take as default."""
    return {name: value for name, value in values.items() if value}


def _cpu(cpu: CpuStats) -> Document:
    usage = _non_empty(
        {
            "total": cpu.usage,
            "percpu": list(cpu.by_cpu),
            "percpu_kernel": list(cpu.by_cpu_system),
            "percpu_user": list(cpu.by_cpu_user),
        }
    )
    throttling = _non_empty(
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
    lists = _non_empty({"cpus": list(cpuset.cpus), "mems": list(cpuset.mems)})
    return lists | {name: cpuset.flags.get(name, 0) for name in FLAGS}


def _memory(memory: MemoryStats) -> Document:
    details = memory.details
    usage = MemoryCounter(memory.usage, memory.limit, memory.peak, memory.failures)
    document = _non_empty({"cache": details.get("cache", details.get("file", 0))}) | {
        "usage": _counter(usage),
        "swap": _counter(memory.with_swap),
        "kernel": _counter(memory.kernel),
        "kernelTCP": _counter(memory.kernel_tcp),
    }
    document |= _non_empty({"raw": details}) | _psi(memory.pressure)
    return document | {"event_count": memory.events}


def _counter(counter: MemoryCounter) -> Document:
    limit = _NO_LIMIT if counter.limit is None else counter.limit
    values = _non_empty({"usage": counter.usage, "max": counter.peak})
    return {"limit": limit} | values | {"failcnt": counter.failures}


def _blkio(blkio: BlkioStats) -> Document:
    lists = blkio.lists or _as_lists(blkio)
    return _non_empty(
        {_LISTS[name]: [_count(count) for count in counts] for name, counts in lists.items()}
    ) | _psi(blkio.pressure)


def _as_lists(blkio: BlkioStats) -> dict[str, tuple[IoCount, ...]]:
    """Return v2's per-device counters as the v1 lists with the same content."""
    byte_counts: list[IoCount] = []
    operation_counts: list[IoCount] = []
    for entry in blkio.devices:
        for counts, reads, writes in (
            (byte_counts, entry.read_bytes, entry.write_bytes),
            (operation_counts, entry.read_operations, entry.write_operations),
        ):
            counts.append(IoCount(entry.major, entry.minor, "Read", reads))
            counts.append(IoCount(entry.major, entry.minor, "Write", writes))
    return {"io_service_bytes": tuple(byte_counts), "io_serviced": tuple(operation_counts)}


def _count(count: IoCount) -> Document:
    return _non_empty(
        {"major": count.major, "minor": count.minor, "op": count.operation, "value": count.value}
    )


def _psi(pressure: Pressure | None) -> Document:
    return {} if pressure is None else {"psi": msgspec.to_builtins(pressure)}
