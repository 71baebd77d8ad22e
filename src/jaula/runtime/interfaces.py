"""Interfaces that the runtime needs from other packages; the composition root implements them."""

from __future__ import annotations

import msgspec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import Any, Protocol, Self

    from jaula.spec.runtime_spec import Resources, Seccomp
else:
    Protocol = object  # ten times as fast to create, and only type checkers use these classes


class AttachCgroup(Protocol):
    """The part of a cgroup that a new process needs to enter it."""

    def open_attach_fds(self, *, cloned: bool = False) -> tuple[int, ...]: ...
    def directory_fd(self) -> int | None: ...


class Cgroup(AttachCgroup, Protocol):
    """The part of a container's cgroup that the runtime uses."""

    def apply(self, resources: Resources) -> tuple[str, ...]: ...
    def stats(self, *, detailed: bool = False) -> Any: ...
    def close(self) -> None: ...
    def release_pause_process(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def freeze(self, *, wait: bool = True) -> None: ...
    def thaw(self) -> None: ...
    def frozen(self) -> bool: ...
    def kill(self) -> None: ...
    def destroy(self) -> None: ...
    def oom_kills(self) -> int: ...
    def is_oom(self, kills: int) -> bool: ...
    def peak_memory(self) -> int: ...
    def oom_fd(self) -> int | None: ...
    def pids(self) -> tuple[int, ...]: ...
    def locations(self) -> dict[str, str]: ...


class CgroupDriver(Protocol):
    """Create and open cgroups by their path below the mount point."""

    version: int

    def create(self, path: str) -> Cgroup: ...
    def open(self, path: str) -> Cgroup: ...


class LogWriter(Protocol):
    """The log of a container's output."""

    def write(self, stream: str, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def poll(self) -> float | None: ...
    def reopen(self) -> None: ...
    def close(self) -> None: ...


class AbsentCgroup(Protocol):
    """Return a cgroup that is gone: it has no processes and counts nothing."""

    def __call__(self, path: str, /) -> Cgroup: ...


class OpenLog(Protocol):
    """Open a log writer by driver name."""

    def __call__(self, driver: str, options: dict[str, str], path: str) -> LogWriter: ...


class SeccompProgram(Protocol):
    """Compile a seccomp profile, or take it from the cache; return (BPF program, flags)."""

    def __call__(self, seccomp: Seccomp, cache: str | None) -> tuple[bytes, int]: ...


class FollowLogs(Protocol):
    """Serve clients that follow logs, in a process of its own, until the engine disconnects."""

    def __call__(self, engine: socket, /) -> None: ...


class Interfaces(msgspec.Struct, frozen=True):
    """The implementations that the runtime works with; ``fds`` are descriptors that they hold."""

    cgroups: CgroupDriver
    absent_cgroup: AbsentCgroup
    open_log: OpenLog
    seccomp_program: SeccompProgram
    follow_logs: FollowLogs
    fds: tuple[int, ...] = ()


def ignore(_text: str) -> None:
    """Drop a step that is done: the default of functions that name their steps."""
