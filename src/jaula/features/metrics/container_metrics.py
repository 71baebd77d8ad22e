"""Metrics of containers, with the names and labels that dashboards know from cAdvisor. Pure.

Each row of the two tables is a metric with its own labels and its values. Prometheus
(:mod:`.exposition`) and CRI (:mod:`jaula.features.kubernetes.cri.cri_metrics`) have the same
tables.

Source: KEP-2371 and ``metrics/prometheus.go`` of cAdvisor for the names.

Facts about units: values are integers of the kernel's. ``divisor`` converts them to the unit of the
name. CRI has integers only and rounds down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jaula.cgroups.cgroup_driver import IoEntry, MemoryStats, Pressure, PressureLine, Stats
    from jaula.features.metrics.pod_samples import ContainerSample, FileSystem
    from jaula.spec.api_documents import HostConfig

COUNTER, GAUGE = "counter", "gauge"
_NANOSECONDS, _MICROSECONDS = 1_000_000_000, 1_000_000
_CPU_PERIOD, _CPU_SHARES = 100_000, 1024  # the kernel's defaults

Value = tuple[tuple[str, ...], int]
"""The values of a metric's own labels, and the value."""


class Metric(NamedTuple):
    """A metric of containers. ``labels`` are its own ones, which follow those of all metrics.

    A ``costly`` metric needs files that are not read for each scrape of Prometheus.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    type: str
    values: Callable[[ContainerSample], Iterable[Value]]
    divisor: int = 1
    costly: bool = False


class NetworkMetric(NamedTuple):
    """A metric of network interfaces, whose name is its own label. ``counter`` is the kernel's."""

    name: str
    help: str
    counter: str


def working_set(memory: MemoryStats) -> int:
    """Return the bytes that the kernel does not reclaim first, as cAdvisor counts them."""
    return max(memory.usage - memory.inactive_file, 0)


def rss(memory: MemoryStats) -> int:
    """Return the bytes of anonymous memory."""
    return memory.details.get("anon", hierarchical(memory, "rss"))


def hierarchical(memory: MemoryStats, key: str) -> int:
    """Return a value of ``memory.stat`` with the cgroups below; v1 has two keys for it."""
    return memory.details.get(f"total_{key}", memory.details.get(key, 0))


# -- the table -----------------------------------------------------------------------------------


def _counter(name: str, help: str, value: Callable[[Stats], int], divisor: int = 1) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        return (((), value(sample.cgroup.stats)),)

    return Metric(name, help, (), COUNTER, values, divisor)


def _gauge(name: str, help: str, value: Callable[[Stats], int]) -> Metric:
    return _counter(name, help, value)._replace(type=GAUGE)


def _memory(name: str, help: str, value: Callable[[MemoryStats], int]) -> Metric:
    return _gauge(f"container_memory_{name}", help, lambda stats: value(stats.memory))


def _limit(name: str, help: str, value: Callable[[HostConfig], int]) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        return (((), value(sample.record.host_config)),)

    return Metric(f"container_spec_{name}", help, (), GAUGE, values)


def _time(name: str, help: str, value: Callable[[ContainerSample], int]) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        return (((), value(sample)),)

    return Metric(name, help, (), GAUGE, values, _NANOSECONDS)


def _file_system(name: str, help: str, value: Callable[[FileSystem], int]) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        return (((sample.file_system.device,), value(sample.file_system)),)

    return Metric(f"container_fs_{name}", help, ("device",), GAUGE, values)


def _device_io(name: str, help: str, value: Callable[[IoEntry], int]) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        for entry in sample.cgroup.stats.blkio.devices:
            yield (sample.devices[entry.major, entry.minor],), value(entry)

    return Metric(f"container_fs_{name}", help, ("device",), COUNTER, values)


def _pressure(
    resource: str,
    kind: str,
    help: str,
    pressure: Callable[[Stats], Pressure | None],
    line: Callable[[Pressure], PressureLine],
) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        if (found := pressure(sample.cgroup.stats)) is not None:
            yield (), line(found).total

    name = f"container_pressure_{resource}_{kind}_seconds_total"
    return Metric(name, help, (), COUNTER, values, _MICROSECONDS)


def _pressures() -> Iterator[Metric]:
    resources: tuple[tuple[str, Callable[[Stats], Pressure | None]], ...] = (
        ("cpu", lambda stats: stats.cpu.pressure),
        ("memory", lambda stats: stats.memory.pressure),
        ("io", lambda stats: stats.blkio.pressure),
    )
    for name, pressure in resources:
        label = name if name == "memory" else name.upper()
        yield _pressure(
            name,
            "waiting",
            f"Seconds in which a task or more waited for {label}.",
            pressure,
            lambda found: found.some,
        )
        yield _pressure(
            name,
            "stalled",
            f"Seconds in which all tasks waited for {label}.",
            pressure,
            lambda found: found.full,
        )


def _cpu_usage(sample: ContainerSample) -> Iterable[Value]:
    yield ("total",), sample.cgroup.stats.cpu.usage


def _failures(sample: ContainerSample) -> Iterable[Value]:
    memory = sample.cgroup.stats.memory
    for key in ("pgfault", "pgmajfault"):
        yield (key, "container"), memory.details.get(key, 0)
        yield (key, "hierarchy"), hierarchical(memory, key)


def _layer_size(sample: ContainerSample) -> Iterable[Value]:
    if sample.layer is not None:
        yield (sample.file_system.device,), sample.layer.usage.size


def _device_usage(sample: ContainerSample) -> Iterable[Value]:
    for entry in sample.cgroup.stats.blkio.devices:
        device = (sample.devices[entry.major, entry.minor], str(entry.major), str(entry.minor))
        yield (*device, "Read"), entry.read_bytes
        yield (*device, "Write"), entry.write_bytes


def _huge_pages(sample: ContainerSample) -> Iterable[Value]:
    return (((size,), found.usage) for size, found in sample.cgroup.stats.hugetlb.items())


def _huge_pages_peak(sample: ContainerSample) -> Iterable[Value]:
    return (((size,), found.peak) for size, found in sample.cgroup.stats.hugetlb.items())


def _processes(sample: ContainerSample) -> Iterable[Value]:
    yield (), len(sample.cgroup.pids)


def _descriptors(sample: ContainerSample) -> Iterable[Value]:
    if sample.open_files is not None:
        yield (), sample.open_files.descriptors


def _sockets(sample: ContainerSample) -> Iterable[Value]:
    if sample.open_files is not None:
        yield (), sample.open_files.sockets


def _files_limit(sample: ContainerSample) -> Iterable[Value]:
    if sample.files_limit is not None:
        yield ("max_open_files",), sample.files_limit


def _quota(sample: ContainerSample) -> Iterable[Value]:
    if (quota := sample.record.host_config.cpu_quota) > 0:
        yield (), quota


CONTAINER_METRICS: tuple[Metric, ...] = (
    Metric(
        "container_cpu_usage_seconds_total",
        "CPU time of the container in seconds.",
        ("cpu",),
        COUNTER,
        _cpu_usage,
        _NANOSECONDS,
    ),
    _counter(
        "container_cpu_user_seconds_total",
        "CPU time of the container in user mode, in seconds.",
        lambda stats: stats.cpu.user,
        _NANOSECONDS,
    ),
    _counter(
        "container_cpu_system_seconds_total",
        "CPU time of the container in the kernel, in seconds.",
        lambda stats: stats.cpu.system,
        _NANOSECONDS,
    ),
    _counter(
        "container_cpu_cfs_periods_total",
        "Periods of the CPU quota that have elapsed.",
        lambda stats: stats.cpu.periods,
    ),
    _counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the CPU quota was exhausted.",
        lambda stats: stats.cpu.throttled_periods,
    ),
    _counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Time for which the CPU quota has throttled the container, in seconds.",
        lambda stats: stats.cpu.throttled,
        _NANOSECONDS,
    ),
    _memory("usage_bytes", "Memory in use, in bytes.", lambda memory: memory.usage),
    _memory(
        "working_set_bytes",
        "Memory in use without inactive pages of files, in bytes.",
        working_set,
    ),
    _memory("max_usage_bytes", "Peak of the memory in use, in bytes.", lambda m: m.peak),
    _memory("rss", "Anonymous memory in bytes.", rss),
    _memory(
        "cache",
        "Page cache in bytes.",
        lambda memory: memory.details.get("file", hierarchical(memory, "cache")),
    ),
    _memory(
        "mapped_file",
        "Mapped pages of files, in bytes.",
        lambda m: m.details.get("file_mapped", hierarchical(m, "mapped_file")),
    ),
    _memory("swap", "Swap in use, in bytes.", lambda memory: memory.swap),
    _memory("kernel_usage", "Memory of the kernel in bytes.", lambda m: m.kernel.usage)._replace(
        costly=True
    ),
    _memory(
        "total_active_file_bytes",
        "Active pages of files, in bytes.",
        lambda memory: hierarchical(memory, "active_file"),
    ),
    _memory(
        "total_inactive_file_bytes",
        "Inactive pages of files, in bytes.",
        lambda memory: memory.inactive_file,
    ),
    _counter(
        "container_memory_failcnt",
        "Allocations that met the memory limit.",
        lambda stats: stats.memory.failures,
    ),
    Metric(
        "container_memory_failures_total",
        "Page faults of the container.",
        ("failure_type", "scope"),
        COUNTER,
        _failures,
    ),
    _counter(
        "container_oom_events_total",
        "Processes of the container that the OOM killer has killed.",
        lambda stats: stats.oom_kills,
    ),
    Metric(
        "container_hugetlb_usage_bytes",
        "Huge pages in use, in bytes.",
        ("pagesize",),
        GAUGE,
        _huge_pages,
        costly=True,
    ),
    Metric(
        "container_hugetlb_max_usage_bytes",
        "Peak of the huge pages in use, in bytes.",
        ("pagesize",),
        GAUGE,
        _huge_pages_peak,
        costly=True,
    ),
    Metric(
        "container_fs_usage_bytes",
        "Size of the files in the writable layer, in bytes.",
        ("device",),
        GAUGE,
        _layer_size,
    ),
    _file_system("limit_bytes", "Size of the file system in bytes.", lambda fs: fs.size),
    _file_system("inodes_total", "Inodes of the file system.", lambda fs: fs.inodes),
    _file_system("inodes_free", "Free inodes of the file system.", lambda fs: fs.free_inodes),
    _device_io("reads_bytes_total", "Bytes read from the device.", lambda io: io.read_bytes),
    _device_io("reads_total", "Reads from the device.", lambda io: io.read_operations),
    _device_io("writes_bytes_total", "Bytes written to the device.", lambda io: io.write_bytes),
    _device_io("writes_total", "Writes to the device.", lambda io: io.write_operations),
    Metric(
        "container_blkio_device_usage_total",
        "Bytes transferred between the container and the device.",
        ("device", "major", "minor", "operation"),
        COUNTER,
        _device_usage,
    ),
    Metric("container_processes", "Processes of the container.", (), GAUGE, _processes),
    _gauge("container_threads", "Threads of the container.", lambda stats: stats.pids.current),
    _gauge(
        "container_threads_max",
        "Limit of threads; 0 without one.",
        lambda stats: stats.pids.limit or 0,
    ),
    Metric(
        "container_file_descriptors",
        "Open file descriptors of the container.",
        (),
        GAUGE,
        _descriptors,
        costly=True,
    ),
    Metric("container_sockets", "Open sockets of the container.", (), GAUGE, _sockets, costly=True),
    Metric(
        "container_ulimits_soft",
        "Soft resource limit of the first process.",
        ("ulimit",),
        GAUGE,
        _files_limit,
    ),
    *_pressures(),
    _limit(
        "cpu_period",
        "Period of the CPU quota in microseconds.",
        lambda limits: limits.cpu_period or _CPU_PERIOD,
    ),
    Metric(
        "container_spec_cpu_quota",
        "CPU quota in microseconds for each period.",
        (),
        GAUGE,
        _quota,
    ),
    _limit("cpu_shares", "CPU shares.", lambda limits: limits.cpu_shares or _CPU_SHARES),
    _limit(
        "memory_limit_bytes",
        "Memory limit in bytes; 0 without one.",
        lambda limits: max(limits.memory, 0),
    ),
    _limit(
        "memory_reservation_limit_bytes",
        "Memory reservation in bytes; 0 without one.",
        lambda limits: max(limits.memory_reservation, 0),
    ),
    _limit(
        "memory_swap_limit_bytes",
        "Limit of memory and swap in bytes; 0 without one.",
        lambda limits: max(limits.memory_swap, 0),
    ),
    _time(
        "container_start_time_seconds",
        "Time of the start in seconds since the epoch.",
        lambda sample: sample.record.started_at,
    ),
    _time(
        "container_last_seen",
        "Time of the sample in seconds since the epoch.",
        lambda sample: sample.cgroup.moment,
    ),
)

NETWORK_METRICS = (
    NetworkMetric("container_network_receive_bytes_total", "Bytes received.", "rx_bytes"),
    NetworkMetric("container_network_receive_packets_total", "Packets received.", "rx_packets"),
    NetworkMetric(
        "container_network_receive_packets_dropped_total",
        "Received packets that were dropped.",
        "rx_dropped",
    ),
    NetworkMetric("container_network_receive_errors_total", "Errors of reception.", "rx_errors"),
    NetworkMetric("container_network_transmit_bytes_total", "Bytes transmitted.", "tx_bytes"),
    NetworkMetric("container_network_transmit_packets_total", "Packets transmitted.", "tx_packets"),
    NetworkMetric(
        "container_network_transmit_packets_dropped_total",
        "Packets to transmit that were dropped.",
        "tx_dropped",
    ),
    NetworkMetric(
        "container_network_transmit_errors_total", "Errors of transmission.", "tx_errors"
    ),
)
