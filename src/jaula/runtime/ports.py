"""What the runtime needs from the other parts, as protocols; the composition root fills them in."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from jaula.spec.runtime import Resources, Seccomp


class Cgroup(Protocol):
    """The part of a container's cgroup that the runtime uses."""

    def apply(self, resources: Resources) -> tuple[str, ...]: ...
    def entry(self) -> tuple[int, ...]: ...
    def stats(self) -> Any: ...
    def close(self) -> None: ...
    def directory_fd(self) -> int | None: ...
    def kill(self) -> None: ...
    def destroy(self) -> None: ...
    def oom_kills(self) -> int: ...
    def peak_memory(self) -> int: ...
    def oom_fd(self) -> int | None: ...
    def pids(self) -> tuple[int, ...]: ...


class CgroupDriver(Protocol):
    """Makes cgroups by their path below the mount point."""

    version: int

    def create(self, path: str) -> Cgroup: ...
    def open(self, path: str) -> Cgroup: ...


class LogWriter(Protocol):
    """Where a container's output is kept."""

    def write(self, stream: str, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class OpenLog(Protocol):
    """Opens a log writer by driver name."""

    def __call__(self, driver: str, options: dict[str, str], path: str) -> LogWriter: ...


class SeccompProgram(Protocol):
    """Compiles a profile, or takes it from the cache: (BPF, flags)."""

    def __call__(self, seccomp: Seccomp, cache: str | None) -> tuple[bytes, int]: ...


class Parts(NamedTuple):
    """Everything the runtime is given."""

    cgroups: CgroupDriver
    open_log: OpenLog
    seccomp_program: SeccompProgram
