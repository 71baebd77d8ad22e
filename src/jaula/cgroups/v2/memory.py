"""The v2 ``memory`` controller.

Source: OCI config-linux.md "Memory"; kernel ``admin-guide/cgroup-v2.rst`` "Memory". OCI's ``swap``
is memory plus swap; v2 has a limit for swap alone, so one is taken from the other.
"""

from __future__ import annotations

import ctypes
import os

from jaula.cgroups import memory_usage
from jaula.cgroups.files import FileWrite, Reader, Step, WriteWarning, flat_keyed, limit, number
from jaula.cgroups.protocol import MemoryCounter, MemoryStats
from jaula.cgroups.v2 import pressure
from jaula.errors import InvalidRequest
from jaula.kernel.libc import function
from jaula.spec.runtime import Resources

LIMIT = "memory.max"
SWAP = "memory.swap.max"

_NO_SWAP = "this kernel does not account swap, memory is limited without swap"
_NO_SWAPPINESS = "swappiness by container does not exist in cgroup v2, it is not in force"
_NO_KMEM = "a limit of kernel memory does not exist in cgroup v2: memory.max includes it"
_NO_OOM = "the OOM killer cannot be disabled in cgroup v2"

_IN_MODIFY = 0x2  # linux/inotify.h

_inotify_init1 = function("inotify_init1", ctypes.c_int)
_inotify_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class Memory:
    name = "memory"
    limits = ("memory.max", "memory.swap.max", "memory.low", "memory.high", "memory.oom.group")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        memory = resources.memory
        if memory is None:
            return ()
        memory_usage.check(memory, current, "memory.current", "memory.peak")
        steps: list[Step] = []
        swap = swap_max(memory.limit or None, memory.swap or None, limit(current(LIMIT)))
        if swap is not None:
            steps.append(FileWrite(SWAP, swap, missing=_NO_SWAP))
        if memory.limit:
            steps.append(FileWrite(LIMIT, _bytes(memory.limit)))
        if memory.reservation:
            steps.append(FileWrite("memory.low", _bytes(memory.reservation)))
        for asked, text in (
            (memory.swappiness is not None, _NO_SWAPPINESS),
            (memory.kernel, _NO_KMEM),
            (memory.disable_oom_killer, _NO_OOM),
        ):
            if asked:
                steps.append(WriteWarning(text))
        return tuple(steps)


def swap_max(wanted: int | None, swap: int | None, now: int | None) -> str | None:
    """The value of memory.swap.max, or None to leave it.

    ``wanted`` is the new memory limit if one is asked, ``now`` the one in force. Raises
    ``InvalidRequest`` where the sum is smaller than the memory limit, or where there is no
    memory limit to take from it.
    """
    if swap == -1 or (swap is None and wanted == -1):
        return "max"
    if swap is None:
        return None
    memory = now if wanted is None else (None if wanted == -1 else wanted)
    if memory is None:
        raise InvalidRequest(
            "memory-swap needs a memory limit", hint="it is the sum of memory and swap"
        )
    if swap < memory:
        raise InvalidRequest(
            f"memory plus swap ({swap} bytes) is less than the memory limit ({memory} bytes)",
            hint="memory-swap is the sum of both; -1 is unlimited swap",
        )
    return str(swap - memory)


def _bytes(value: int) -> str:
    return "max" if value < 0 else str(value)


def stats(read: Reader, *, detailed: bool = False) -> MemoryStats:
    """What the cgroup and those below it use, in bytes; one without swap files counts none."""
    details = flat_keyed(read("memory.stat"))
    events = flat_keyed(read("memory.events"))
    usage, most = number(read("memory.current")), limit(read(LIMIT))
    swap = number(read("memory.swap.current"))
    return MemoryStats(
        usage=usage,
        limit=most,
        peak=number(read("memory.peak")),
        swap=swap,
        failures=events.get("max", 0),
        inactive_file=details.get("inactive_file", 0),
        details=details,
        with_swap=_with_swap(read, usage + swap, most) if detailed else MemoryCounter(),
        kernel=MemoryCounter(usage=details.get("kernel", 0)) if detailed else MemoryCounter(),
        kernel_tcp=MemoryCounter(usage=details.get("sock", 0)) if detailed else MemoryCounter(),
        events=events,
        pressure=pressure.stats(read, "memory") if detailed else None,
    )


def _with_swap(read: Reader, usage: int, most: int | None) -> MemoryCounter:
    """v2 limits swap alone; the sum of both limits is what v1 and OCI speak of."""
    swap = limit(read(SWAP))
    return MemoryCounter(
        usage=usage,
        limit=None if most is None or swap is None else most + swap,
        failures=flat_keyed(read("memory.swap.events")).get("max", 0),
    )


def oom_kills(read: Reader) -> int:
    """Processes killed for want of memory so far."""
    return flat_keyed(read("memory.events")).get("oom_kill", 0)


def subscribe_oom(directory: int) -> int | None:
    """A non-blocking inotify descriptor, or None where the memory controller is not on."""
    if not os.access("memory.events", os.F_OK, dir_fd=directory):
        return None
    watch = _inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        path = f"/proc/self/fd/{directory}/memory.events"
        _inotify_add_watch(watch, path.encode(), _IN_MODIFY)
    except BaseException:
        os.close(watch)
        raise
    return watch
