"""Samples of pods as metrics of CRI: the names and labels that dashboards know from cadvisor. Pure.

Each row of the two tables is a metric with its labels and its values, so that a descriptor and its
samples agree. The kubelet drops a sample with another number of labels.

Source: KEP-2371 and ``metrics/prometheus.go`` of cadvisor for the names.

Facts about CRI: a value is an unsigned integer. So times are in whole seconds, rounded down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from jaula.cri import stats
from jaula.cri.proto import api_pb2 as api

if TYPE_CHECKING:
    from jaula.cgroups.protocol import IoEntry, MemoryStats, Pressure, PressureLine, Stats
    from jaula.engine.pods.metrics import ContainerSample, FileSystem, SandboxSample
    from jaula.state.records import ResourceLimits

_NANOSECONDS, _MICROSECONDS = 1_000_000_000, 1_000_000
_CPU_PERIOD, _CPU_SHARES = 100_000, 1024  # the kernel's defaults
_LABELS = ("pod", "namespace", "container", "id", "image")

Value = tuple[tuple[str, ...], int]
"""The values of a metric's own labels, and the value."""


class Metric(NamedTuple):
    """A metric of containers. ``labels`` are its own ones, which follow those of all metrics."""

    name: str
    help: str
    labels: tuple[str, ...]
    type: api.MetricType
    values: Callable[[ContainerSample], Iterable[Value]]


class NetworkMetric(NamedTuple):
    """A metric of a pod's interfaces, whose name is its own label. ``counter`` is the kernel's."""

    name: str
    help: str
    counter: str


def descriptors() -> Iterator[api.MetricDescriptor]:
    """Yield the descriptors of all metrics."""
    for metric in CONTAINER_METRICS:
        yield api.MetricDescriptor(
            name=metric.name, help=metric.help, label_keys=(*_LABELS, *metric.labels)
        )
    for network in NETWORK_METRICS:
        yield api.MetricDescriptor(
            name=network.name, help=network.help, label_keys=(*_LABELS, "interface")
        )


def encode(samples: Iterable[SandboxSample]) -> list[api.PodSandboxMetrics]:
    """Return the metrics of pods."""
    return [sandbox_metrics(sample) for sample in samples]


def sandbox_metrics(sample: SandboxSample) -> api.PodSandboxMetrics:
    """Return the metrics of a pod and its containers."""
    record = sample.record
    assert record.sandbox is not None
    pod = (record.sandbox.request.metadata.name, record.sandbox.request.metadata.namespace)
    made = api.PodSandboxMetrics(pod_sandbox_id=record.id)
    for interface, counters in sample.networks.items():
        labels = (*pod, "", record.id, "", interface)
        for metric in NETWORK_METRICS:
            _add(made, metric.name, api.COUNTER, sample.moment, labels, counters[metric.counter])
    made.container_metrics.extend(_container_metrics(c, pod) for c in sample.containers)
    return made


def _container_metrics(sample: ContainerSample, pod: tuple[str, str]) -> api.ContainerMetrics:
    record, moment = sample.record, sample.cgroup.moment
    assert record.pod is not None
    labels = (*pod, record.pod.name, record.id, record.body.image)
    made = api.ContainerMetrics(container_id=record.id)
    for metric in CONTAINER_METRICS:
        for own, value in metric.values(sample):
            _add(made, metric.name, metric.type, moment, (*labels, *own), value)
    return made


def _add(
    made: api.PodSandboxMetrics | api.ContainerMetrics,
    name: str,
    type: api.MetricType,
    moment: int,
    labels: tuple[str, ...],
    value: int,
) -> None:
    made.metrics.add(
        name=name,
        timestamp=moment,
        metric_type=type,
        label_values=labels,
        value=api.UInt64Value(value=value),
    )


# -- the table -----------------------------------------------------------------------------------


def _counter(name: str, help: str, value: Callable[[Stats], int]) -> Metric:
    return Metric(name, help, (), api.COUNTER, lambda sample: (((), value(sample.cgroup.stats)),))


def _gauge(name: str, help: str, value: Callable[[Stats], int]) -> Metric:
    return _counter(name, help, value)._replace(type=api.GAUGE)


def _memory(name: str, help: str, value: Callable[[MemoryStats], int]) -> Metric:
    return _gauge(f"container_memory_{name}", help, lambda stats: value(stats.memory))


def _limit(name: str, help: str, value: Callable[[ResourceLimits], int]) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        return (((), value(sample.record.resolved.resources)),)

    return Metric(f"container_spec_{name}", help, (), api.GAUGE, values)


def _time(name: str, help: str, value: Callable[[ContainerSample], int]) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        return (((), value(sample) // _NANOSECONDS),)

    return Metric(name, help, (), api.GAUGE, values)


def _file_system(name: str, help: str, value: Callable[[FileSystem], int]) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        return (((sample.file_system.device,), value(sample.file_system)),)

    return Metric(f"container_fs_{name}", help, ("device",), api.GAUGE, values)


def _device_io(name: str, help: str, value: Callable[[IoEntry], int]) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        for entry in sample.cgroup.stats.blkio.devices:
            yield (sample.devices[entry.major, entry.minor],), value(entry)

    return Metric(f"container_fs_{name}", help, ("device",), api.COUNTER, values)


def _pressure(
    resource: str,
    kind: str,
    help: str,
    pressure: Callable[[Stats], Pressure | None],
    line: Callable[[Pressure], PressureLine],
) -> Metric:
    def values(sample: ContainerSample) -> Iterable[Value]:
        if (found := pressure(sample.cgroup.stats)) is not None:
            yield (), line(found).total // _MICROSECONDS

    name = f"container_pressure_{resource}_{kind}_seconds_total"
    return Metric(name, help, (), api.COUNTER, values)


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
    yield ("total",), sample.cgroup.stats.cpu.usage // _NANOSECONDS


def _failures(sample: ContainerSample) -> Iterable[Value]:
    memory = sample.cgroup.stats.memory
    for key in ("pgfault", "pgmajfault"):
        yield (key, "container"), memory.details.get(key, 0)
        yield (key, "hierarchy"), stats.hierarchical(memory, key)


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
    if (quota := sample.record.resolved.resources.cpu_quota) > 0:
        yield (), quota


CONTAINER_METRICS: tuple[Metric, ...] = (
    Metric(
        "container_cpu_usage_seconds_total",
        "CPU time of the container in seconds.",
        ("cpu",),
        api.COUNTER,
        _cpu_usage,
    ),
    _counter(
        "container_cpu_user_seconds_total",
        "CPU time of the container in user mode, in seconds.",
        lambda stats: stats.cpu.user // _NANOSECONDS,
    ),
    _counter(
        "container_cpu_system_seconds_total",
        "CPU time of the container in the kernel, in seconds.",
        lambda stats: stats.cpu.system // _NANOSECONDS,
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
        lambda stats: stats.cpu.throttled // _NANOSECONDS,
    ),
    _memory("usage_bytes", "Memory in use, in bytes.", lambda memory: memory.usage),
    _memory(
        "working_set_bytes",
        "Memory in use without inactive pages of files, in bytes.",
        stats.working_set,
    ),
    _memory("max_usage_bytes", "Peak of the memory in use, in bytes.", lambda m: m.peak),
    _memory("rss", "Anonymous memory in bytes.", stats.rss),
    _memory(
        "cache",
        "Page cache in bytes.",
        lambda memory: memory.details.get("file", stats.hierarchical(memory, "cache")),
    ),
    _memory(
        "mapped_file",
        "Mapped pages of files, in bytes.",
        lambda m: m.details.get("file_mapped", stats.hierarchical(m, "mapped_file")),
    ),
    _memory("swap", "Swap in use, in bytes.", lambda memory: memory.swap),
    _memory("kernel_usage", "Memory of the kernel in bytes.", lambda m: m.kernel.usage),
    _memory(
        "total_active_file_bytes",
        "Active pages of files, in bytes.",
        lambda memory: stats.hierarchical(memory, "active_file"),
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
        api.COUNTER,
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
        api.GAUGE,
        _huge_pages,
    ),
    Metric(
        "container_hugetlb_max_usage_bytes",
        "Peak of the huge pages in use, in bytes.",
        ("pagesize",),
        api.GAUGE,
        _huge_pages_peak,
    ),
    Metric(
        "container_fs_usage_bytes",
        "Size of the files in the writable layer, in bytes.",
        ("device",),
        api.GAUGE,
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
        api.COUNTER,
        _device_usage,
    ),
    Metric("container_processes", "Processes of the container.", (), api.GAUGE, _processes),
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
        api.GAUGE,
        _descriptors,
    ),
    Metric("container_sockets", "Open sockets of the container.", (), api.GAUGE, _sockets),
    Metric(
        "container_ulimits_soft",
        "Soft resource limit of the first process.",
        ("ulimit",),
        api.GAUGE,
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
        api.GAUGE,
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
