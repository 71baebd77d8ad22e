"""Namespaces of another container, such as the sandbox of a pod, for CRIU.

CRIU saves and restores no namespace that it is in itself: processes inherit it at a restore. So
CRIU enters the joined network, IPC and UTS namespaces, and neither saves nor makes them.

The user namespace is different. A dump works from the host's, and with its privileges. At a restore
the processes must be created in the joined one, so CRIU enters it. It has no privileges over the
host there, and no daemon of CRIU's that acts with them. What needs these privileges is done by the
engine:

* The container's own cgroup, time, UTS and network namespaces are created by a child of the engine
  that is in the container's cgroup and in the joined user namespace. CRIU enters them as well.
* The first process is moved into the cgroup before it has children.
* CRIU gets a mount namespace of its own, in which it may mount.

Facts: without CAP_SYS_ADMIN on the host CRIU cannot suspend the seccomp filters of the processes
(PTRACE_O_SUSPEND_SECCOMP) while it lets them go. They make munmap(2), futex(2) and rt_sigreturn(2)
then, which a filter must allow. Sizes of socket buffers are limited by net.core.wmem_max.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jaula.features.checkpoint.runtime.proto import images_pb2
from jaula.kernel import namespaces, process_calls
from jaula.kernel.namespaces import CLONE
from jaula.runtime.create.namespace_plan import KINDS

_NAMES = {flag: name for name, flag in namespaces.KINDS.items()}
_OFFSETS = "/proc/self/timens_offsets"
_MAX_LIMIT = (1 << 63) - 1
_SECOND = 1_000_000_000  # nanoseconds
_CLOCKS = {"monotonic": time.CLOCK_MONOTONIC, "boottime": time.CLOCK_BOOTTIME}


class Created(NamedTuple):
    """Namespaces that the engine creates in a joined user namespace, by their types in a spec."""

    kinds: frozenset[str]
    hostname: str
    domainname: str
    clocks: images_pb2.TimeNamespace | None  # from which the clocks of a time namespace go on


def open_all(pid: int, kinds: Iterable[str]) -> dict[str, int]:
    """Open namespaces of a process; return the descriptors by the type's name in a spec."""
    return {kind: namespaces.open_namespace(pid, _NAMES[KINDS[kind]]) for kind in kinds}


def enter(fds: Mapping[str, int]) -> None:
    """Enter namespaces, as root of the user namespace if it is among them."""
    for kind, fd in fds.items():
        if kind != "user":
            namespaces.setns(fd, KINDS[kind])
    if "user" in fds:
        namespaces.setns(fds["user"], CLONE.NEWUSER)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        namespaces.unshare(CLONE.NEWNS)


def take_limits(rlimits: Mapping[int, int], oom_score_adj: int) -> None:
    """Take the limits of the processes: those that no process in a user namespace can raise.

    ``rlimits`` are hard limits by number.
    """
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(oom_score_adj))
    for number, hard in rlimits.items():
        soft, own = resource.getrlimit(number)
        highest = resource.RLIM_INFINITY if hard > _MAX_LIMIT else hard
        if own != resource.RLIM_INFINITY and (highest == resource.RLIM_INFINITY or highest > own):
            resource.setrlimit(number, (soft, highest))


def create_within(user_fd: int, created: Created) -> None:
    """Enter a user namespace, and create namespaces that it owns."""
    offsets = b""
    if created.clocks is not None:
        offsets = clock_offsets(created.clocks, _own_offsets(), _now())
    flags = CLONE(0)
    for kind in created.kinds:
        flags |= KINDS[kind]
    namespaces.setns(user_fd, CLONE.NEWUSER)
    namespaces.unshare(flags)
    if "uts" in created.kinds:
        if created.hostname:
            process_calls.sethostname(created.hostname)
        if created.domainname:
            process_calls.setdomainname(created.domainname)
    if offsets:
        fd = os.open(_OFFSETS, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, offsets)
        finally:
            os.close(fd)


def open_created(pid: int, created: Created) -> dict[str, int]:
    """Open the namespaces that a process has created by :func:`create_within`, by type."""
    names = {"time": "time_for_children"}
    return {
        kind: namespaces.open_namespace(pid, names.get(kind, _NAMES[KINDS[kind]]))
        for kind in created.kinds
    }


def clock_offsets(
    clocks: images_pb2.TimeNamespace, own: Mapping[str, int], now: Mapping[str, int]
) -> bytes:
    """Return the text for timens_offsets(7) with which clocks go on. Pure.

    ``own`` are the offsets of this process, ``now`` its clocks, in nanoseconds.
    """
    saved = {"monotonic": clocks.monotonic, "boottime": clocks.boottime}
    rows = []
    for name, clock in saved.items():
        offset = clock.tv_sec * _SECOND + clock.tv_nsec - (now[name] - own[name])
        rows.append(f"{name} {offset // _SECOND} {offset % _SECOND}\n")
    return "".join(rows).encode()


def _own_offsets() -> dict[str, int]:
    with open(_OFFSETS, encoding="ascii") as file:
        rows = (line.split() for line in file)
        return {name: int(sec) * _SECOND + int(nsec) for name, sec, nsec in rows}


def _now() -> dict[str, int]:
    return {name: time.clock_gettime_ns(clock) for name, clock in _CLOCKS.items()}
