"""The v2 ``memory`` controller.

Source: OCI config-linux.md "Memory"; kernel ``admin-guide/cgroup-v2.rst`` "Memory". OCI's ``swap``
is memory plus swap. v2 limits swap alone, so the memory limit is subtracted.

OOM notification is inotify on ``memory.events``: a change of a file with events generates a file
modified event, except in the root cgroup. The file also counts other events, so the reader compares
``oom_kill``.
"""

from __future__ import annotations

import os

from jaula.cgroups import memory_usage
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
from jaula.cgroups.v2 import pressure
from jaula.errors import InvalidRequest
from jaula.kernel import inotify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

LIMIT = "memory.max"
SWAP = "memory.swap.max"

_NO_SWAP = "this kernel does not account swap, memory is limited without swap"
_NO_SWAPPINESS = "swappiness per container does not exist in cgroup v2, it is not in effect"
_NO_KMEM = "a kernel memory limit does not exist in cgroup v2: memory.max includes it"
_NO_OOM = "the OOM killer cannot be disabled in cgroup v2"


class Memory:
    """The v2 ``memory`` controller."""

    name = "memory"
    section = "memory"
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
        for is_set, text in (
            (memory.swappiness is not None, _NO_SWAPPINESS),
            (memory.kernel, _NO_KMEM),
            (memory.disable_oom_killer, _NO_OOM),
        ):
            if is_set:
                steps.append(WriteWarning(text))
        return tuple(steps)


def swap_max(new_limit: int | None, swap: int | None, current_limit: int | None) -> str | None:
    """Return the value of memory.swap.max, or None to leave it.

    ``new_limit`` is the new memory limit if set, ``current_limit`` the one in effect.

    :raises InvalidRequest: when the sum is less than the memory limit, or without a memory limit to
        subtract.
    """
    if swap == -1 or (swap is None and new_limit == -1):
        return "max"
    if swap is None:
        return None
    memory = current_limit if new_limit is None else (None if new_limit == -1 else new_limit)
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
    """Return the usage of the cgroup and those below it, in bytes; an absent file counts zero."""
    details = flat_keyed(read("memory.stat"))
    events = flat_keyed(read("memory.events"))
    usage, max_bytes = number(read("memory.current")), limit(read(LIMIT))
    swap = number(read("memory.swap.current"))
    return MemoryStats(
        usage=usage,
        limit=max_bytes,
        peak=number(read("memory.peak")),
        swap=swap,
        failures=events.get("max", 0),
        inactive_file=details.get("inactive_file", 0),
        details=details,
        with_swap=_with_swap(read, usage + swap, max_bytes) if detailed else MemoryCounter(),
        kernel=MemoryCounter(usage=details.get("kernel", 0)) if detailed else MemoryCounter(),
        kernel_tcp=MemoryCounter(usage=details.get("sock", 0)) if detailed else MemoryCounter(),
        events=events,
        pressure=pressure.stats(read, "memory") if detailed else None,
    )


def _with_swap(read: Reader, usage: int, memory_limit: int | None) -> MemoryCounter:
    """Return memory and swap together: v1 and OCI use the sum, v2 has separate limits."""
    swap = limit(read(SWAP))
    return MemoryCounter(
        usage=usage,
        limit=None if memory_limit is None or swap is None else memory_limit + swap,
        failures=flat_keyed(read("memory.swap.events")).get("max", 0),
    )


def oom_kills(read: Reader) -> int:
    """Return the number of processes that the OOM killer has killed."""
    return flat_keyed(read("memory.events")).get("oom_kill", 0)


def subscribe_oom(directory: int) -> int | None:
    """Return a non-blocking inotify descriptor.

    None if the memory controller is not enabled, or if the cgroup was removed: systemd removes a
    scope when its last process ends, at any time after it was opened.
    """
    if not os.access("memory.events", os.F_OK, dir_fd=directory):
        return None
    watch = inotify.create()
    try:
        path = f"/proc/self/fd/{directory}/memory.events"
        inotify.add_watch(watch, path, inotify.IN_MODIFY)
    except FileNotFoundError:
        os.close(watch)
        return None
    except BaseException:
        os.close(watch)
        raise
    return watch
