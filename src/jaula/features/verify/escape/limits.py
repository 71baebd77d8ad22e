"""Attempts to exceed a limit. Pure.

Every limit with a value in the request or spec is tried with the smallest excess: memory, threads
(which count as processes), CPU time, CPUs, the size of a tmpfs, resource limits of the process.
Raising limits is tried by the cgroup's files and by prlimit(2). Disk rates and CPU shares are only
read: trying rates would disturb other containers, and shares are not a limit.

A child first makes itself the OOM killer's victim, in place of the twin's init. Many threads may
reach the memory limit before the pids limit.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence

import msgspec

from jaula.features.verify.escape.attempts import (
    CLOSED,
    O_WRONLY,
    REFUSED,
    SIGKILL,
    SIGXFSZ,
    Attempt,
    call,
    path_bytes,
)
from jaula.features.verify.escape.program import BURN, THREADS, Entry

GROUP = "ceilings"
MAX_THREADS, MAX_BURNERS = 5000, 64
MAX_SPACE = 1 << 30  # bytes; used for a moment if the limit is not in effect
MAX_LOCKED = 64 << 20  # bytes; used for a moment if the limit is not in effect
PAGE = 4096
MILLISECOND = 1_000_000  # nanoseconds
MAX_BURN = 2000 * MILLISECOND
SLICE = 5 * MILLISECOND  # of a quota, per CPU: sched_cfs_bandwidth_slice_us
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
"""Limit files of a cgroup as seen from inside, on v2 and v1."""

OOM_VICTIM = (
    call("open", b"/proc/self/oom_score_adj\0", O_WRONLY),
    call("write", 3, b"1000", 4),
    call("close", 3),
)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The requested limits; None or empty means no limit.

    ``memory`` is in bytes. ``cpu`` is (quota, period) in microseconds. ``outside`` are CPUs that
    the container may not use; ``processors`` is the number that it may use. ``spaces`` has the size
    of each file system with a limit by path: each tmpfs, and the root if it has a quota.
    ``rlimits`` has hard limits by the spec's names.
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
    """Return attempts to exceed each limit.

    The parameters name flags that relax some: ``oom`` if memory is waited for instead of refused,
    ``cgroup`` if the cgroup's files may be written, ``raising`` if the container may raise its own
    resource limits.
    """
    attempts = []
    if limits.memory is not None:
        size = limits.memory + (16 << 20)
        map_memory = call("mmap", 0, size, 3, 0x8022, -1, 0)  # PRIVATE | ANONYMOUS | POPULATE
        attempts.append(Attempt(group=GROUP, name=f"{size >> 20} MB of memory",
                             steps=(*OOM_VICTIM, map_memory), refusals=frozenset({errno.ENOMEM}),
                             signals=frozenset({SIGKILL}), relaxed_by=oom))  # fmt: skip
    if limits.pids is not None and limits.pids <= MAX_THREADS:
        killed = frozenset({SIGKILL}) if limits.memory is not None else frozenset()
        attempts.append(Attempt(group=GROUP, name=f"{limits.pids + 8} threads",
                             steps=(*OOM_VICTIM, Entry(THREADS, 0, (limits.pids + 8,))),
                             refusals=frozenset({errno.EAGAIN, errno.ENOMEM}),
                             signals=killed, relaxed_by=oom))  # fmt: skip
    attempts += cpu_attempts(limits)
    attempts += [_fill(place, size) for place, size in limits.spaces.items() if size <= MAX_SPACE]
    attempts += [
        Attempt(group=GROUP, name=f"raising by {path}", refusals=CLOSED, relaxed_by=cgroup,
                steps=(call("open", path_bytes(path), O_WRONLY),))
        for path in FILES
    ]  # fmt: skip
    for name, hard in limits.rlimits.items():
        attempts += _resource(name, hard, raising)
    return attempts


def cpu_attempts(limits: Limits) -> list[Attempt]:
    """Return attempts to use more CPU time than the quota, and CPUs outside the set."""
    attempts = []
    if limits.cpu is not None and (burn := burn_plan(*limits.cpu, limits.processors)) is not None:
        threads, wall, most = burn
        share = limits.cpu[0] / limits.cpu[1]
        attempts.append(Attempt(group=GROUP, name=f"more than {share:g} processors for "
                             f"{wall // MILLISECOND} ms",
                             steps=(Entry(BURN, 0, (threads - 1, wall)),),
                             max_value=most))  # fmt: skip
    if limits.outside:
        mask = sum(1 << number for number in limits.outside)
        size = max(limits.outside) // 64 * 8 + 8
        step = call("sched_setaffinity", 0, size, mask.to_bytes(size, "little"))
        attempts.append(Attempt(group=GROUP, name="processors outside the set", steps=(step,),
                             refusals=REFUSED | {errno.EINVAL}))  # fmt: skip
    return attempts


def burn_plan(quota: int, period: int, processors: int) -> tuple[int, int, int] | None:
    """Return (threads, wall time in ns, maximum CPU time in ns), or None if not measurable.

    Ten periods of use touch eleven; one more allows for clocks of that resolution. Each CPU may
    still hold a slice of a quota.
    """
    wall = min(max(10 * period * 1000, 300 * MILLISECOND), MAX_BURN)
    threads = min(2 * quota // period + 2, processors, MAX_BURNERS)
    maximum = quota * 1000 * (wall // (period * 1000) + 2) + SLICE * processors
    return (threads, wall, maximum) if maximum < threads * wall * 19 // 20 else None


def _fill(directory: str, size: int) -> Attempt:
    """Return an attempt to create a file larger than the file system; it is removed.

    A smaller file size limit ends the process instead.
    """
    file = path_bytes(f"{directory.rstrip('/')}/jaula-probe")
    steps = (
        *OOM_VICTIM,
        call("open", file, O_RDWR_CREAT, 0o600),
        call("fallocate", 3, 0, 0, size - size % PAGE + PAGE),
        call("unlink", file),
    )
    return Attempt(group=GROUP, name=f"{(size >> 10) + 4} KB in {directory}", steps=steps,
                   refusals=CLOSED | {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG},
                   signals=frozenset({SIGKILL, SIGXFSZ}), deciding=len(OOM_VICTIM) + 1)  # fmt: skip


def _resource(name: str, hard: int, raising: str | None) -> list[Attempt]:
    """Return attempts to exceed one resource limit and to raise it."""
    if name not in RESOURCES or hard >= 1 << 62:
        return []
    number, short = RESOURCES[name], name.removeprefix("RLIMIT_").lower()
    higher, same = struct.pack("<QQ", hard + 1, hard + 1), struct.pack("<QQ", hard, hard)
    attempts = [
        Attempt(group=GROUP, name=f"raising {short}", relaxed_by=raising,
                steps=(call("prlimit64", 0, number, higher, 0),))
    ]  # fmt: skip
    to_the_limit = call("prlimit64", 0, number, same, 0)
    for steps, refusals, signals in _beyond(name, hard):
        attempts.append(Attempt(group=GROUP, name=f"more than {hard} {short}",
                             refusals=REFUSED | refusals,
                             steps=(to_the_limit, *steps), signals=signals,
                             relaxed_by=raising))  # fmt: skip
    return attempts


Trial = tuple[tuple[Entry, ...], frozenset[int], frozenset[int]]


def _beyond(name: str, hard: int) -> Sequence[Trial]:
    """Return (calls, errnos, signals) that slightly exceed a limit, if that is harmless."""
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
