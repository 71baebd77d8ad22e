"""The v1 ``memory`` controller.

Source: OCI config-linux.md "Memory"; kernel ``admin-guide/cgroup-v1/memory.rst``. ``swap`` is
memory plus swap, as ``memory.memsw`` is, which may be missing (``swapaccount=0``). The kernel
keeps limit <= memsw at each step, so the order of the two writes follows the direction.
"""

from __future__ import annotations

import errno
import os

from jaula.cgroups import files, memory_usage
from jaula.cgroups.files import FileWrite, Reader, Step, WriteWarning, flat_keyed, limit, number
from jaula.cgroups.protocol import MemoryCounter, MemoryStats
from jaula.errors import InvalidRequest
from jaula.spec.runtime import Resources

LIMIT = "memory.limit_in_bytes"
SWAP = "memory.memsw.limit_in_bytes"
UNLIMITED = (2**63 - 1) & ~0xFFFF
"""PAGE_COUNTER_MAX in bytes, rounded down to the largest page size: at or above it, no limit."""

_NO_SWAP = "this kernel does not account swap, memory is limited without swap"
_NO_KMEM = "the limit of kernel memory is ignored, the kernel has deprecated it"


class Memory:
    name = "memory"
    limits = (LIMIT, SWAP, "memory.soft_limit_in_bytes", "memory.swappiness", "memory.oom_control")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        memory = resources.memory
        if memory is None:
            return ()
        memory_usage.check(memory, current, "memory.usage_in_bytes", "memory.max_usage_in_bytes")
        wanted, swap = memory.limit or None, memory.swap or None
        if wanted and swap and wanted > 0 and 0 < swap < wanted:
            raise InvalidRequest(
                f"memory plus swap ({swap} bytes) is less than the memory limit ({wanted} bytes)",
                hint="memory-swap is the sum of both; -1 is unlimited swap",
            )
        steps: list[Step] = _ordered(wanted, swap, current)
        if memory.reservation:
            steps.append(FileWrite("memory.soft_limit_in_bytes", str(memory.reservation)))
        if memory.swappiness is not None:
            steps.append(FileWrite("memory.swappiness", str(memory.swappiness)))
        if memory.disable_oom_killer:
            steps.append(FileWrite("memory.oom_control", "1"))
        if memory.kernel:
            steps.append(WriteWarning(_NO_KMEM))
        return tuple(steps)


def _ordered(wanted: int | None, swap: int | None, current: Reader) -> list[Step]:
    if wanted == -1 and swap is None:
        swap = -1  # else the old memsw would still limit memory
    limit_step = FileWrite(LIMIT, str(wanted)) if wanted else None
    swap_step = FileWrite(SWAP, str(swap), missing=_NO_SWAP) if swap else None
    if limit_step is None or swap_step is None:
        return [step for step in (limit_step, swap_step) if step]
    now = limit(current(SWAP), UNLIMITED)
    grows = now is not None and (swap == -1 or (swap or 0) > now)
    return [swap_step, limit_step] if grows else [limit_step, swap_step]


def stats(read: Reader, *, detailed: bool = False) -> MemoryStats:
    """What the cgroup and those below it use, in bytes."""
    details = flat_keyed(read("memory.stat"))
    usage = number(read("memory.usage_in_bytes"))
    both = number(read("memory.memsw.usage_in_bytes"))
    return MemoryStats(
        usage=usage,
        limit=limit(read(LIMIT), UNLIMITED),
        peak=number(read("memory.max_usage_in_bytes")),
        swap=details.get("total_swap", max(both - usage, 0)),
        failures=number(read("memory.failcnt")),
        inactive_file=details.get("total_inactive_file", 0),
        details=details,
        with_swap=_counter(read, "memory.memsw") if detailed else MemoryCounter(),
        kernel=_counter(read, "memory.kmem") if detailed else MemoryCounter(),
        kernel_tcp=_counter(read, "memory.kmem.tcp") if detailed else MemoryCounter(),
    )


def _counter(read: Reader, prefix: str) -> MemoryCounter:
    return MemoryCounter(
        usage=number(read(f"{prefix}.usage_in_bytes")),
        limit=limit(read(f"{prefix}.limit_in_bytes"), UNLIMITED),
        peak=number(read(f"{prefix}.max_usage_in_bytes")),
        failures=number(read(f"{prefix}.failcnt")),
    )


def oom_kills(read: Reader) -> int:
    """Processes killed for want of memory so far."""
    return flat_keyed(read("memory.oom_control")).get("oom_kill", 0)


def subscribe_oom(directory: int) -> int | None:
    """A non-blocking eventfd, or None where the kernel has no such events (PREEMPT_RT)."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open("memory.oom_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            files.write(directory, "cgroup.event_control", f"{event} {control}")
        finally:
            os.close(control)
    except OSError as error:
        os.close(event)
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            return None
        raise
    except BaseException:
        os.close(event)
        raise
    return event
