"""The v1 ``memory`` controller.

Source: OCI config-linux.md "Memory"; kernel ``admin-guide/cgroup-v1/memory.rst``. ``swap`` is
memory plus swap, as in ``memory.memsw``, which may be missing (``swapaccount=0``). The kernel
requires limit <= memsw at each write, so the order of the two writes depends on the direction.

OOM notification ("OOM Control" and "Memory thresholds" there) is an eventfd registered with
``cgroup.event_control``. The kernel signals it at every OOM and once when the cgroup is removed.
"""

from __future__ import annotations

import errno
import os

from jaula.cgroups import cgroup_files, memory_usage
from jaula.cgroups.cgroup_driver import MemoryCounter, MemoryStats
from jaula.cgroups.cgroup_files import (
    FileWrite,
    Reader,
    Step,
    WriteWarning,
    flat_keyed,
    limit,
    number,
)
from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

LIMIT = "memory.limit_in_bytes"
SWAP = "memory.memsw.limit_in_bytes"
UNLIMITED = (2**63 - 1) & ~0xFFFF
"""PAGE_COUNTER_MAX in bytes, rounded down to the largest page size; at or above it, no limit."""

_NO_SWAP = "this kernel does not account swap, memory is limited without swap"
_NO_KMEM = "the kernel memory limit is ignored, the kernel has deprecated it"


class Memory:
    """The v1 ``memory`` controller."""

    name = "memory"
    section = "memory"
    limits = (LIMIT, SWAP, "memory.soft_limit_in_bytes", "memory.swappiness", "memory.oom_control")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        memory = resources.memory
        if memory is None:
            return ()
        memory_usage.check(memory, current, "memory.usage_in_bytes", "memory.max_usage_in_bytes")
        new_limit, swap = memory.limit or None, memory.swap or None
        if new_limit and swap and new_limit > 0 and 0 < swap < new_limit:
            raise InvalidRequest(
                f"memory plus swap ({swap} bytes) is less than the memory limit "
                f"({new_limit} bytes)",
                hint="memory-swap is the sum of both; -1 is unlimited swap",
            )
        steps: list[Step] = _ordered(new_limit, swap, current)
        if memory.reservation:
            steps.append(FileWrite("memory.soft_limit_in_bytes", str(memory.reservation)))
        if memory.swappiness is not None:
            steps.append(FileWrite("memory.swappiness", str(memory.swappiness)))
        if memory.disable_oom_killer:
            steps.append(FileWrite("memory.oom_control", "1"))
        if memory.kernel:
            steps.append(WriteWarning(_NO_KMEM))
        return tuple(steps)


def _ordered(new_limit: int | None, swap: int | None, current: Reader) -> list[Step]:
    """Return the writes of limit and memsw in the order that the kernel accepts."""
    if new_limit == -1 and swap is None:
        swap = -1  # otherwise the old memsw would still limit memory
    limit_step = FileWrite(LIMIT, str(new_limit)) if new_limit else None
    swap_step = FileWrite(SWAP, str(swap), missing=_NO_SWAP) if swap else None
    if limit_step is None or swap_step is None:
        return [step for step in (limit_step, swap_step) if step]
    current_swap = limit(current(SWAP), UNLIMITED)
    grows = current_swap is not None and (swap == -1 or (swap or 0) > current_swap)
    return [swap_step, limit_step] if grows else [limit_step, swap_step]


def stats(read: Reader, *, detailed: bool = False) -> MemoryStats:
    """Return the usage of the cgroup and those below it, in bytes."""
    details = flat_keyed(read("memory.stat"))
    usage = number(read("memory.usage_in_bytes"))
    with_swap = number(read("memory.memsw.usage_in_bytes"))
    return MemoryStats(
        usage=usage,
        limit=limit(read(LIMIT), UNLIMITED),
        peak=number(read("memory.max_usage_in_bytes")),
        swap=details.get("total_swap", max(with_swap - usage, 0)),
        failures=number(read("memory.failcnt")),
        inactive_file=details.get("total_inactive_file", 0),
        details=details,
        with_swap=_counter(read, "memory.memsw") if detailed else MemoryCounter(),
        kernel=_counter(read, "memory.kmem") if detailed else MemoryCounter(),
        kernel_tcp=_counter(read, "memory.kmem.tcp") if detailed else MemoryCounter(),
    )


def usage(read: Reader) -> MemoryStats:
    """Return the usage without limits, from four files."""
    details = flat_keyed(read("memory.stat"))
    return MemoryStats(
        usage=number(read("memory.usage_in_bytes")),
        peak=number(read("memory.max_usage_in_bytes")),
        swap=details.get("total_swap", 0),
        failures=number(read("memory.failcnt")),
        inactive_file=details.get("total_inactive_file", 0),
        details=details,
    )


def _counter(read: Reader, prefix: str) -> MemoryCounter:
    return MemoryCounter(
        usage=number(read(f"{prefix}.usage_in_bytes")),
        limit=limit(read(f"{prefix}.limit_in_bytes"), UNLIMITED),
        peak=number(read(f"{prefix}.max_usage_in_bytes")),
        failures=number(read(f"{prefix}.failcnt")),
    )


def oom_kills(read: Reader) -> int:
    """Return the number of processes that the OOM killer has killed."""
    return flat_keyed(read("memory.oom_control")).get("oom_kill", 0)


def subscribe_oom(directory: int) -> int | None:
    """Return a non-blocking eventfd.

    None if the kernel has no OOM events (PREEMPT_RT), or if the cgroup was removed.
    """
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open("memory.oom_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            cgroup_files.write(directory, "cgroup.event_control", f"{event} {control}")
        finally:
            os.close(control)
    except OSError as error:
        os.close(event)
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise
    except BaseException:
        os.close(event)
        raise
    return event
