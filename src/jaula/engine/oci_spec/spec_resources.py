"""Limits: check Docker's values and convert them to the OCI ``resources``.

Source: Docker Engine API 1.45 ``Resources``; moby ``verifyPlatformContainerResources`` for what
is refused and what is only warned about; runtime-spec ``config-linux.md``, "Control groups".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import msgspec

from jaula.cgroups import hugetlb_page_size
from jaula.cgroups.v2 import unified
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import InvalidRequest
from jaula.spec import api_documents, cpuset
from jaula.spec.pod import PodContainerRequest, PodContainerUpdate
from jaula.spec.runtime_spec import (
    CPU,
    BlockIO,
    HugepageLimit,
    Memory,
    Pids,
    Resources,
    Rlimit,
    ThrottleDevice,
    WeightDevice,
)
from jaula.state.container_records import NO_POD_RESOURCES, PodResources

_Limit = TypeVar("_Limit", api_documents.WeightDevice, api_documents.ThrottleDevice)

MINIMUM_MEMORY = 6 * 1024 * 1024  # bytes
MINIMUM_SHARES, MAXIMUM_SHARES = 2, 262_144  # the kernel's, which would change other values
_MAXIMUM_QUOTA = (1 << 44) - 1  # microseconds: MAX_BW of kernel/sched/core.c
PERIOD = 100_000  # microseconds; the kernel's default

_RLIMIT_WORDS = """
as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending
stack
"""
_RLIMITS = frozenset(_RLIMIT_WORDS.split())


def check(
    limits: api_documents.Resources, host: HostFacts, pod: PodResources = NO_POD_RESOURCES
) -> tuple[str, ...]:
    """Check the limits; return warnings for those that will have no effect.

    :raises InvalidRequest: when a value is out of range or a combination is not valid.
    :raises Unsupported: when a value of ``unified`` needs a controller that the host lacks.
    """
    _check_unified(pod.unified, host)
    return (*_check_memory(limits, host), *_check_cpu(limits, host), *_check_others(limits, host))


def _check_unified(values: Mapping[str, str], host: HostFacts) -> None:
    if values and host.cgroup_version == 1:
        raise InvalidRequest(
            f"unified resources need cgroup v2, this host has v1: {', '.join(sorted(values))}"
        )
    for name, value in values.items():
        unified.check(name, value, host.controllers)


def _check_memory(limits: api_documents.Resources, host: HostFacts) -> list[str]:
    warnings = []
    memory, swap = limits.memory, limits.memory_swap
    if memory < 0 or 0 < memory < MINIMUM_MEMORY:
        raise InvalidRequest("Minimum memory limit allowed is 6MB")
    if swap > 0 and memory <= 0:
        raise InvalidRequest(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < swap < memory:
        raise InvalidRequest(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if swap < -1:
        raise InvalidRequest(f"invalid memory-swap {swap}: use -1 for no limit")
    if (swap or memory > 0) and not host.swap_accounting:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted."
            " Memory limited without swap."
        )
    swappiness = limits.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidRequest(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < limits.memory_reservation < MINIMUM_MEMORY or limits.memory_reservation < 0:
        raise InvalidRequest("Minimum memory reservation allowed is 6MB")
    if memory > 0 and limits.memory_reservation > memory:
        raise InvalidRequest(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if limits.oom_kill_disable and memory <= 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can"
            " result in the system running out of resources."
        )
    if limits.kernel_memory > 0:
        warnings.append("The kernel no longer supports kernel memory limits. Limitation discarded.")
    return warnings


def _check_cpu(limits: api_documents.Resources, host: HostFacts) -> list[str]:
    count = len(host.online_cpus)
    check_cpu_time(limits)
    if limits.nano_cpus < 0 or limits.nano_cpus > count * 1_000_000_000:
        raise InvalidRequest(
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    if 0 < limits.nano_cpus < 10_000_000:
        raise InvalidRequest(
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    if limits.cpu_shares < 0:
        raise InvalidRequest(f"invalid CPU shares ({limits.cpu_shares}): value must be positive")
    if 0 < limits.cpu_shares < MINIMUM_SHARES:
        raise InvalidRequest(f"the minimum allowed cpu-shares is {MINIMUM_SHARES}")
    if limits.cpu_shares > MAXIMUM_SHARES:
        raise InvalidRequest(f"the maximum allowed cpu-shares is {MAXIMUM_SHARES}")
    if limits.cpu_period and not 1_000 <= limits.cpu_period <= 1_000_000:
        raise InvalidRequest(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < limits.cpu_quota < 1_000:
        raise InvalidRequest("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if limits.cpu_quota > _MAXIMUM_QUOTA:
        raise InvalidRequest(f"the maximum allowed CPU cfs quota is {_MAXIMUM_QUOTA}")
    _check_set("CPUs", limits.cpuset_cpus, host.online_cpus)
    _check_set("memory nodes", limits.cpuset_mems, host.memory_nodes)
    if limits.cpu_realtime_period or limits.cpu_realtime_runtime:
        raise InvalidRequest(
            "real-time CPU limits are not supported: no distribution's kernel has"
            " CONFIG_RT_GROUP_SCHED"
        )
    return []


def check_cpu_time(limits: api_documents.Resources) -> None:
    """Check that CPU time is limited in one notation.

    :raises InvalidRequest: when it is not.
    """
    if limits.nano_cpus > 0 and (limits.cpu_period > 0 or limits.cpu_quota > 0):
        option = "CPU Period" if limits.cpu_period > 0 else "CPU Quota"
        raise InvalidRequest(f"Conflicting options: Nano CPUs and {option} cannot both be set")


def check_oom_score(score: int) -> None:
    """Check the adjustment of the OOM score.

    :raises InvalidRequest: when it is out of range.
    """
    if not -1000 <= score <= 1000:
        raise InvalidRequest(f"Invalid value {score}, range for oom score adj is [-1000, 1000]")


def _check_set(what: str, text: str, available: frozenset[int]) -> None:
    if not text:
        return
    try:
        numbers = cpuset.parse(text)
    except InvalidRequest:
        raise InvalidRequest(f"Invalid value {text} for {what}") from None
    if missing := numbers - available:
        raise InvalidRequest(
            f"Requested {what} are not available - requested {text},"
            f" available: {cpuset.text_of(available)}",
            hint=f"missing: {cpuset.text_of(missing)}",
        )


def _check_others(limits: api_documents.Resources, host: HostFacts) -> list[str]:
    if limits.pids_limit is not None and limits.pids_limit < -1:
        raise InvalidRequest(f"invalid pids limit {limits.pids_limit}: use -1 for no limit")
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidRequest("Range of blkio weight is from 10 to 1000")
    if limits.cpu_count or limits.cpu_percent:
        raise InvalidRequest("CPU count and percentage are for Windows", hint="use --cpus")
    if limits.io_maximum_iops or limits.io_maximum_bandwidth:
        raise InvalidRequest(
            "IO limits of this kind are for Windows",
            hint="use --device-read-bps, --device-write-bps",
        )
    if limits.device_requests:
        from jaula.security import cdi

        for request in limits.device_requests:
            cdi.check_request(request)
    rlimits(limits, (0, 0))
    if (limits.blkio_weight or limits.blkio_weight_device) and not host.io_weights:
        reason = "Your kernel does not support Block I/O weight or the cgroup is not mounted."
        return [f"{reason} Weight discarded."]
    return []


def with_pod_limits(
    limits: PodResources, pod: PodContainerRequest | PodContainerUpdate, host: HostFacts
) -> PodResources:
    """Return the limits with those that a container of a pod has beyond Docker's API.

    Limits of huge pages are left out on a host without their controller: the kubelet sends one of 0
    for each page size, to every container.

    :raises InvalidRequest: when a limit of huge pages is not valid.
    """
    for page_size, size in pod.hugepage_limits.items():
        hugetlb_page_size.validate(page_size)
        if size < 0:
            raise InvalidRequest(f"invalid limit {size} of huge pages of {page_size}")
    pages = pod.hugepage_limits if "hugetlb" in host.controllers else {}
    return msgspec.structs.replace(
        limits,
        unified=limits.unified | pod.unified,
        hugepage_limits=limits.hugepage_limits | pages,
    )


def decide(
    limits: api_documents.Resources, host: HostFacts, pod: PodResources = NO_POD_RESOURCES
) -> Resources:
    """Return the limits of a container; device rules are decided elsewhere."""
    pids = host.pids_limit if limits.pids_limit is None else limits.pids_limit
    return Resources(
        memory=_memory(limits, host),
        cpu=_cpu(limits),
        pids=Pids(pids) if pids > 0 else None,
        block_io=_block_io(limits),
        hugepage_limits=_hugepages(pod.hugepage_limits),
        unified=pod.unified,
    )


def change(
    limits: api_documents.ContainerUpdate,
    old: api_documents.Resources,
    merged: api_documents.Resources,
    host: HostFacts,
    pod: PodResources = NO_POD_RESOURCES,
) -> Resources:
    """Return the limits that an update names, computed from the ``merged`` configuration.

    ``old`` is the configuration before, ``pod`` has the limits of a pod's container afterwards.
    """
    whole = decide(merged, host, pod)
    memory = limits.memory or limits.memory_swap or limits.memory_reservation
    cpu = (
        limits.nano_cpus
        or limits.cpu_period
        or limits.cpu_quota
        or limits.cpu_shares
        or limits.cpuset_cpus
        or limits.cpuset_mems
    )
    pids = whole.pids or Pids(-1)
    values, pages = {}, {}
    if isinstance(limits, PodContainerUpdate):
        values, pages = limits.unified, limits.hugepage_limits
    # ``unified`` takes precedence over the other limits, so it is written again after them.
    again = tuple(prefix for prefix, is_set in (("memory.", memory), ("cpu", cpu)) if is_set)
    return Resources(
        memory=whole.memory if memory else None,
        cpu=whole.cpu if cpu else None,
        pids=pids if limits.pids_limit is not None else None,
        block_io=_changed_block_io(limits, old),
        hugepage_limits=_hugepages(
            {size: limit for size, limit in pod.hugepage_limits.items() if size in pages}
        ),
        unified={
            name: value
            for name, value in pod.unified.items()
            if name in values or name.startswith(again)
        },
    )


_MEMORY = frozenset({"memory", "memory_swap", "memory_reservation"})
_CPU_TIME = frozenset({"nano_cpus", "cpu_quota", "cpu_period"})
_CPU = _CPU_TIME | {"cpu_shares", "cpuset_cpus", "cpuset_mems"}
_DEFAULT_SHARES = 1024  # the kernel's


def reset(
    limits: Resources, names: Collection[str], target: api_documents.Resources, host: HostFacts
) -> Resources:
    """Return limits that also write the members ``names`` of ``target``. Pure.

    A member that ``target`` does not set becomes unlimited, or the kernel's default.
    """
    present, whole = frozenset(names), decide(target, host)
    if present & _MEMORY:
        limits = _reset_memory(limits, present, whole.memory or Memory(), host)
    if present & _CPU:
        cpu = whole.cpu or CPU()
        if present & _CPU_TIME:
            cpu = msgspec.structs.replace(cpu, quota=cpu.quota or -1, period=cpu.period or PERIOD)
        if "cpu_shares" in present:
            cpu = msgspec.structs.replace(cpu, shares=cpu.shares or _DEFAULT_SHARES)
        if "cpuset_cpus" in present:
            cpus = cpu.cpus or cpuset.text_of(host.online_cpus)
            cpu = msgspec.structs.replace(cpu, cpus=cpus)
        if "cpuset_mems" in present:
            mems = cpu.mems or cpuset.text_of(host.memory_nodes)
            cpu = msgspec.structs.replace(cpu, mems=mems)
        limits = msgspec.structs.replace(limits, cpu=cpu)
    if "pids_limit" in present:
        limits = msgspec.structs.replace(limits, pids=whole.pids or Pids(-1))
    return limits


def _reset_memory(
    limits: Resources, names: frozenset[str], memory: Memory, host: HostFacts
) -> Resources:
    unified = limits.unified
    if "memory" in names:
        memory = msgspec.structs.replace(memory, limit=memory.limit or -1)
    if names & {"memory", "memory_swap"} and host.swap_accounting:
        memory = msgspec.structs.replace(memory, swap=memory.swap or -1)
    if "memory_reservation" in names and not memory.reservation:
        if host.cgroup_version == 1:
            memory = msgspec.structs.replace(memory, reservation=-1)
        else:  # -1 would be all memory: memory.low protects
            unified = unified | {"memory.low": "0"}
    return msgspec.structs.replace(limits, memory=memory, unified=unified)


def _hugepages(limits: Mapping[str, int]) -> tuple[HugepageLimit, ...]:
    return tuple(HugepageLimit(page_size=size, limit=limit) for size, limit in limits.items())


def _changed_block_io(
    limits: api_documents.ContainerUpdate, old: api_documents.Resources
) -> BlockIO | None:
    """Return the I/O limits to write; the value 0 removes that of a device."""
    weights = tuple(
        WeightDevice(*_device(d.path), weight=d.weight)
        for d in _changed(
            limits.blkio_weight_device,
            old.blkio_weight_device,
            lambda p: api_documents.WeightDevice(path=p),
        )
    )

    def throttle(
        new: tuple[api_documents.ThrottleDevice, ...] | None,
        present: tuple[api_documents.ThrottleDevice, ...],
    ) -> tuple[ThrottleDevice, ...]:
        return _throttle(_changed(new, present, lambda p: api_documents.ThrottleDevice(path=p)))

    block_io = BlockIO(
        weight=limits.blkio_weight or None,
        weight_device=weights,
        throttle_read_bps_device=throttle(limits.blkio_device_read_bps, old.blkio_device_read_bps),
        throttle_write_bps_device=throttle(
            limits.blkio_device_write_bps, old.blkio_device_write_bps
        ),
        throttle_read_iops_device=throttle(
            limits.blkio_device_read_iops, old.blkio_device_read_iops
        ),
        throttle_write_iops_device=throttle(
            limits.blkio_device_write_iops, old.blkio_device_write_iops
        ),
    )
    return None if block_io == BlockIO() else block_io


def _changed(
    new: tuple[_Limit, ...] | None, old: tuple[_Limit, ...], removed: Callable[[str], _Limit]
) -> tuple[_Limit, ...]:
    """Return what turns the ``old`` list into the ``new`` one; None leaves it unchanged."""
    if new is None:
        return ()
    paths: set[str] = {limit.path for limit in new}
    return tuple(removed(limit.path) for limit in old if limit.path not in paths) + new


def _memory(limits: api_documents.Resources, host: HostFacts) -> Memory | None:
    swap: int | None = limits.memory_swap or None
    if limits.memory > 0 and swap is None and host.swap_accounting:
        swap = limits.memory * 2  # Docker's default: as much swap as memory
    swappiness = limits.memory_swappiness
    memory = Memory(
        limit=limits.memory or None,
        reservation=limits.memory_reservation or None,
        swap=swap if host.swap_accounting else None,
        swappiness=None if swappiness == -1 else swappiness,
        disable_oom_killer=bool(limits.oom_kill_disable),
    )
    return None if memory == Memory() else memory


def _cpu(limits: api_documents.Resources) -> CPU | None:
    quota, period = limits.cpu_quota or None, limits.cpu_period or None
    if limits.nano_cpus > 0:
        period = PERIOD
        quota = limits.nano_cpus * PERIOD // 1_000_000_000
    cpu = CPU(
        shares=limits.cpu_shares or None,
        quota=quota,
        period=period,
        cpus=limits.cpuset_cpus or None,
        mems=limits.cpuset_mems or None,
    )
    return None if cpu == CPU() else cpu


def _block_io(limits: api_documents.Resources) -> BlockIO | None:
    block_io = BlockIO(
        weight=limits.blkio_weight or None,
        weight_device=tuple(
            WeightDevice(*_device(d.path), weight=d.weight) for d in limits.blkio_weight_device
        ),
        throttle_read_bps_device=_throttle(limits.blkio_device_read_bps),
        throttle_write_bps_device=_throttle(limits.blkio_device_write_bps),
        throttle_read_iops_device=_throttle(limits.blkio_device_read_iops),
        throttle_write_iops_device=_throttle(limits.blkio_device_write_iops),
    )
    return None if block_io == BlockIO() else block_io


def _throttle(devices: tuple[api_documents.ThrottleDevice, ...]) -> tuple[ThrottleDevice, ...]:
    return tuple(ThrottleDevice(*_device(d.path), rate=d.rate) for d in devices)


def _device(path: str) -> tuple[int, int]:
    # The one access to the host in these decisions: only the node has the device number.
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        raise InvalidRequest(f"cannot limit device {path}: {error.strerror}") from error
    return os.major(number), os.minor(number)


def rlimits(limits: api_documents.Resources, nofile: tuple[int, int]) -> tuple[Rlimit, ...]:
    """Return the limits of ``--ulimit``, and a finite number of open files if none is requested.

    :raises InvalidRequest: when a limit does not exist, or a soft limit exceeds its hard limit.
    """
    by_name: dict[str, Rlimit] = {}
    if nofile[1] > 0:
        by_name["nofile"] = Rlimit("RLIMIT_NOFILE", hard=nofile[1], soft=nofile[0])
    for limit in limits.ulimits:
        name = limit.name.lower()
        if name not in _RLIMITS:
            raise InvalidRequest(
                f"invalid ulimit type: {limit.name}",
                hint=f"must be one of {', '.join(sorted(_RLIMITS))}",
            )
        soft, hard = _unlimited(limit.soft), _unlimited(limit.hard)
        if soft > hard:
            raise InvalidRequest(
                f"ulimit soft limit must be less than or equal to hard limit:"
                f" {limit.soft} > {limit.hard}"
            )
        by_name[name] = Rlimit(f"RLIMIT_{name.upper()}", hard=hard, soft=soft)
    return tuple(by_name.values())


def _unlimited(value: int) -> int:
    return 2**64 - 1 if value == -1 else value
