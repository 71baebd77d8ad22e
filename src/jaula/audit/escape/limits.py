"""Attempts to have more than a limit gives. Pure.

Every limit of which a request or spec has a number is tried, by the smallest thing that is too
much: memory, threads (which count as processes do), processor time, processors, what a tmpfs holds,
resource limits of the process; and raising them, by the cgroup's files and by prlimit(2). Two are
read only, since trying them would disturb others: rates of disks, and shares, which are no ceiling.

A child first makes itself the one that the kernel ends when memory is short, and not the twin's
first process. Many threads may meet the limit of memory before that of their number.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence

import msgspec

from jaula.audit.escape.attempts import (
    CLOSED,
    O_WRONLY,
    REFUSED,
    SIGKILL,
    SIGXFSZ,
    Attempt,
    call,
    path_bytes,
)
from jaula.audit.escape.program import BURN, THREADS, Entry

GROUP = "ceilings"
MAX_THREADS, MAX_BURNERS = 5000, 64
MAX_SPACE = 1 << 30  # bytes; where a limit were not in effect, so much would be used for a moment
MAX_LOCKED = 64 << 20  # bytes, likewise
PAGE = 4096
MILLISECOND = 1_000_000  # nanoseconds
LONGEST = 2000 * MILLISECOND
SLICE = 5 * MILLISECOND  # what a processor takes of a quota at once: sched_cfs_bandwidth_slice_us
O_RDWR_CREAT = 0o102
INFINITY = (1 << 64) - 1

RESOURCES = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip
"""Numbers of include/uapi/asm-generic/resource.h."""

FILES = (
    "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max",
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
)  # fmt: skip
"""Where a cgroup's limits could be raised from inside, on v2 and v1."""

OOM_VICTIM = (
    call("open", b"/proc/self/oom_score_adj\0", O_WRONLY),
    call("write", 3, b"1000", 4),
    call("close", 3),
)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the request limits; None or empty: nothing. Bytes, numbers, processors.

    ``cpu`` is (quota, period) in microseconds. ``outside`` are processors that the container may
    not use; ``processors`` is how many it may. ``spaces`` gives by place how much a file system may
    hold: each tmpfs, and the container's root where it has a quota. ``rlimits`` gives
    hard limits by the spec's names.
    """

    pids: int | None = None
    memory: int | None = None
    cpu: tuple[int, int] | None = None
    outside: frozenset[int] = frozenset()
    processors: int = 1
    spaces: Mapping[str, int] = {}
    rlimits: Mapping[str, int] = {}


def limit_attempts(
    limits: Limits, *, oom: str | None, cgroup: str | None, raising: str | None
) -> list[Attempt]:
    """Attempts to exceed each limit; the flags that lift the kernel's last word on some.

    ``oom``: memory is not refused but waited for. ``cgroup``: the cgroup's files may be written.
    ``raising``: the container may raise its own resource limits.
    """
    found = []
    if limits.memory is not None:
        size = limits.memory + (16 << 20)
        taking = call("mmap", 0, size, 3, 0x8022, -1, 0)  # PRIVATE | ANONYMOUS | POPULATE
        found.append(Attempt(group=GROUP, name=f"{size >> 20} MB of memory",
                             steps=(*OOM_VICTIM, taking), refusals=frozenset({errno.ENOMEM}),
                             signals=frozenset({SIGKILL}), relaxed_by=oom))  # fmt: skip
    if limits.pids is not None and limits.pids <= MAX_THREADS:
        killed = frozenset({SIGKILL}) if limits.memory is not None else frozenset()
        found.append(Attempt(group=GROUP, name=f"{limits.pids + 8} threads",
                             steps=(*OOM_VICTIM, Entry(THREADS, 0, (limits.pids + 8,))),
                             refusals=frozenset({errno.EAGAIN, errno.ENOMEM}),
                             signals=killed, relaxed_by=oom))  # fmt: skip
    found += cpu_attempts(limits)
    found += [_fill(place, size) for place, size in limits.spaces.items() if size <= MAX_SPACE]
    found += [
        Attempt(group=GROUP, name=f"raising by {path}", refusals=CLOSED, relaxed_by=cgroup,
                steps=(call("open", path_bytes(path), O_WRONLY),))
        for path in FILES
    ]  # fmt: skip
    for name, hard in limits.rlimits.items():
        found += _resource(name, hard, raising)
    return found


def cpu_attempts(limits: Limits) -> list[Attempt]:
    """More processor time than the quota, and processors that are not the container's."""
    found = []
    if limits.cpu is not None and (burn := burn_plan(*limits.cpu, limits.processors)) is not None:
        threads, wall, most = burn
        share = limits.cpu[0] / limits.cpu[1]
        found.append(Attempt(group=GROUP, name=f"more than {share:g} processors for "
                             f"{wall // MILLISECOND} ms",
                             steps=(Entry(BURN, 0, (threads - 1, wall)),), max_value=most))  # fmt: skip
    if limits.outside:
        mask = sum(1 << number for number in limits.outside)
        size = max(limits.outside) // 64 * 8 + 8
        step = call("sched_setaffinity", 0, size, mask.to_bytes(size, "little"))
        found.append(Attempt(group=GROUP, name="processors outside the set", steps=(step,),
                             refusals=REFUSED | {errno.EINVAL}))  # fmt: skip
    return found


def burn_plan(quota: int, period: int, processors: int) -> tuple[int, int, int] | None:
    """(threads, nanoseconds of wall time, most that they may get); None where it cannot be told.

    Ten periods are used, which touch eleven; one more is for clocks that are no better than that.
    Each processor may still hold a slice of a quota.
    """
    wall = min(max(10 * period * 1000, 300 * MILLISECOND), LONGEST)
    threads = min(2 * quota // period + 2, processors, MAX_BURNERS)
    most = quota * 1000 * (wall // (period * 1000) + 2) + SLICE * processors
    return (threads, wall, most) if most < threads * wall * 19 // 20 else None


def _fill(place: str, size: int) -> Attempt:
    """A file as large as the file system and a page; it is removed.

    A limit of the size of files that is smaller ends the process.
    """
    file = path_bytes(f"{place.rstrip('/')}/jaula-probe")
    steps = (
        *OOM_VICTIM,
        call("open", file, O_RDWR_CREAT, 0o600),
        call("fallocate", 3, 0, 0, size - size % PAGE + PAGE),
        call("unlink", file),
    )
    return Attempt(group=GROUP, name=f"{(size >> 10) + 4} KB in {place}", steps=steps,
                   refusals=CLOSED | {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG},
                   signals=frozenset({SIGKILL, SIGXFSZ}), deciding=len(OOM_VICTIM) + 1)  # fmt: skip


def _resource(name: str, hard: int, raising: str | None) -> list[Attempt]:
    """Beyond one resource limit, and raising it."""
    if name not in RESOURCES or hard >= 1 << 62:
        return []
    number, short = RESOURCES[name], name.removeprefix("RLIMIT_").lower()
    higher, same = struct.pack("<QQ", hard + 1, hard + 1), struct.pack("<QQ", hard, hard)
    found = [
        Attempt(group=GROUP, name=f"raising {short}", relaxed_by=raising,
                steps=(call("prlimit64", 0, number, higher, 0),))
    ]  # fmt: skip
    to_the_limit = call("prlimit64", 0, number, same, 0)
    for steps, refusals, signals in _beyond(name, hard):
        found.append(Attempt(group=GROUP, name=f"more than {hard} {short}", refusals=REFUSED | refusals,
                             steps=(to_the_limit, *steps), signals=signals,
                             relaxed_by=raising))  # fmt: skip
    return found


Trial = tuple[tuple[Entry, ...], frozenset[int], frozenset[int]]


def _beyond(name: str, hard: int) -> Sequence[Trial]:
    """(calls, errnos, signals) of what takes a little more than a limit, where it does no harm."""
    nothing: frozenset[int] = frozenset()
    space = call("mmap", 0, hard - hard % PAGE + PAGE, 3, 0x4022, -1, 0)  # NORESERVE: none is used
    if name == "RLIMIT_NOFILE" and hard < 1 << 31:
        return [((call("dup2", 0, hard),), frozenset({errno.EBADF}), nothing)]
    if name == "RLIMIT_FSIZE":
        steps = (call("memfd_create", b"probe\0", 0), call("ftruncate", 3, hard + 1))
        return [(steps, frozenset({errno.EFBIG}), frozenset({SIGXFSZ}))]
    if name in ("RLIMIT_AS", "RLIMIT_DATA") and hard < 1 << 46:
        return [((space,), frozenset({errno.ENOMEM}), nothing)]
    if name == "RLIMIT_MEMLOCK" and hard <= MAX_LOCKED:
        locked = call("mmap", 0, hard - hard % PAGE + PAGE, 3, 0x2022, -1, 0)
        return [
            ((*OOM_VICTIM, locked), frozenset({errno.EAGAIN, errno.ENOMEM}), frozenset({SIGKILL}))
        ]
    return []
