"""Docker's stats documents (Engine API 1.45, ``GET /containers/{id}/stats``)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.engine.containers.container_inspect import NEVER
from jaula.engine.userns import join
from jaula.errors import NotFound
from jaula.logs import timestamp

if TYPE_CHECKING:
    from jaula.cgroups.cgroup_driver import BlkioStats, Stats
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

_NANOSECONDS = 1_000_000_000


async def documents(
    services: Services, container: Container, *, stream: bool, one_shot: bool
) -> AsyncIterator[dict[str, Any]]:
    """Yield one document, or one per second until the container is removed.

    Without ``one_shot`` a single document has two samples, one second apart, so that a client can
    compute the share of the CPU.
    """
    previous = _empty_cpu_stats()
    read_before = NEVER
    if not stream and not one_shot and container.live:
        first = sample(services, container)
        previous, read_before = first["cpu_stats"], first["read"]
        await _pause(container)
    while container.id in services.container_store:
        document = sample(services, container)
        document["precpu_stats"], document["preread"] = previous, read_before
        yield document
        if not stream:
            return
        previous, read_before = document["cpu_stats"], document["read"]
        await asyncio.sleep(1)


async def _pause(container: Container) -> None:
    try:
        await asyncio.wait_for(container.exited.wait(), 1)
    except TimeoutError:
        return


def sample(services: Services, container: Container) -> dict[str, Any]:
    """Return the present figures; a container that does not run has none but its name."""
    record = container.record
    document: dict[str, Any] = {
        "read": timestamp.format_time(time.time_ns()) if container.live else NEVER,
        "preread": NEVER,
        "pids_stats": {},
        "blkio_stats": _blkio(None),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _empty_cpu_stats(),
        "precpu_stats": _empty_cpu_stats(),
        "memory_stats": {},
        "name": f"/{record.name}",
        "id": record.id,
        "os_type": "linux",
    }
    if not container.live:
        return document
    try:
        with open_cgroup(services, record) as cgroup:
            stats = cgroup.stats()
    except NotFound:
        return document  # it has just exited
    document["cpu_stats"] = _cpu(stats)
    document["memory_stats"] = _memory(services, stats)
    document["pids_stats"] = {"current": stats.pids.current}
    if stats.pids.limit is not None:
        document["pids_stats"]["limit"] = stats.pids.limit
    document["blkio_stats"] = _blkio(stats.blkio)
    if networks := interface_counters(join.process_in(container, "network")):
        document["networks"] = networks
    return document


def _empty_cpu_stats() -> dict[str, Any]:
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def _cpu(stats: Stats) -> dict[str, Any]:
    cpu = stats.cpu
    usage: dict[str, Any] = {
        "total_usage": cpu.usage,
        "usage_in_kernelmode": cpu.system,
        "usage_in_usermode": cpu.user,
    }
    if cpu.by_cpu:
        usage["percpu_usage"] = list(cpu.by_cpu)
    return {
        "cpu_usage": usage,
        "system_cpu_usage": system_cpu_usage(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled,
        },
    }


def system_cpu_usage() -> int:
    """Return the nanoseconds that all CPUs worked or idled (proc(5), ``/proc/stat``)."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = file.readline().split()
    ticks = sum(int(field) for field in fields[1:8])
    return ticks * _NANOSECONDS // os.sysconf("SC_CLK_TCK")


def _memory(services: Services, stats: Stats) -> dict[str, Any]:
    memory = stats.memory
    details = dict(memory.details)
    # Clients subtract the cache that the kernel would drop first; v1 has another key for it.
    details.setdefault("inactive_file", memory.inactive_file)
    if services.cgroups.version == 1:
        details.setdefault("total_inactive_file", memory.inactive_file)
    limit = services.host.total_memory if memory.limit is None else memory.limit
    return {
        "usage": memory.usage,
        "max_usage": memory.peak,
        "stats": details,
        "failcnt": memory.failures,
        "limit": min(limit, services.host.total_memory) if services.host.total_memory else limit,
    }


def _blkio(blkio: BlkioStats | None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    operations: list[dict[str, Any]] = []
    for device in blkio.devices if blkio is not None else ():
        numbers = {"major": device.major, "minor": device.minor}
        rows.append(numbers | {"op": "read", "value": device.read_bytes})
        rows.append(numbers | {"op": "write", "value": device.write_bytes})
        operations.append(numbers | {"op": "read", "value": device.read_operations})
        operations.append(numbers | {"op": "write", "value": device.write_operations})
    return {
        "io_service_bytes_recursive": rows,
        "io_serviced_recursive": operations,
        "io_queue_recursive": [],
        "io_service_time_recursive": [],
        "io_wait_time_recursive": [],
        "io_merged_recursive": [],
        "io_time_recursive": [],
        "sectors_recursive": [],
    }


def interface_counters(pid: int) -> dict[str, dict[str, int]]:
    """Return the counters of the interfaces that a process sees; none if it has exited."""
    try:
        with open(f"/proc/{pid}/net/dev", "rb", buffering=0) as file:
            data = file.read()
    except OSError:
        return {}  # it has just exited
    # A container with CAP_NET_ADMIN can give an interface a name that is not UTF-8.
    return parse_net_dev(data.decode("utf-8", "backslashreplace"))


def parse_net_dev(text: str) -> dict[str, dict[str, int]]:
    """Return the counters of each interface but loopback (proc(5), ``/proc/net/dev``).

    A name may have any character but ``/``, ``:`` and those that the C locale counts as space.
    """
    interfaces = {}
    for line in text.split("\n")[2:]:
        padded, colon, rest = line.partition(":")
        name, values = padded.strip(" "), [int(field) for field in rest.split()]
        if not colon or len(values) < 16 or name == "lo":
            continue
        interfaces[name] = {
            "rx_bytes": values[0],
            "rx_packets": values[1],
            "rx_errors": values[2],
            "rx_dropped": values[3],
            "tx_bytes": values[8],
            "tx_packets": values[9],
            "tx_errors": values[10],
            "tx_dropped": values[11],
        }
    return interfaces
