"""Driver for hosts without a cgroup for this user: no delegated subtree, mostly on v1.

:class:`NullDriver` tries the host's driver first. If the kernel does not permit a cgroup, it
returns a :class:`NullCgroup` without processes. The container then runs with the caller's limits,
and one that requests limits of its own is refused.
"""

from __future__ import annotations

from typing import Any, Self

import msgspec

from jaula.cgroups import cgroup_limits
from jaula.cgroups.cgroup_driver import Cgroup as AnyCgroup
from jaula.cgroups.cgroup_driver import CgroupDriver, Stats, Usage
from jaula.errors import NotAuthorized, NotFound, Unsupported
from jaula.spec.runtime_spec import Resources

IN_SCOPE = "run it in a delegated cgroup: systemd-run --user --scope -p Delegate=yes ..."


class NullCgroup:
    """A :class:`jaula.cgroups.cgroup_driver.Cgroup` for a container without a cgroup.

    It does not know the container's processes: ``pids`` is empty, ``kill`` and ``destroy`` do
    nothing.
    """

    def __init__(self, path: str, reason: str = "no permission", hint: str = IN_SCOPE) -> None:
        self.path = path
        self._reason = reason
        self._hint = hint

    def apply(self, resources: Resources) -> tuple[str, ...]:
        """Accept device rules, which do nothing without root: no device node can be created.

        :raises Unsupported: when another limit is requested.
        """
        if names := requested_limits(resources):
            raise Unsupported(
                f"cannot limit {', '.join(names)}: the container has no cgroup ({self._reason})",
                hint=self._hint,
            )
        return ()

    def add(self, pid: int) -> None:
        """Leave the process in its cgroup."""

    def open_attach_fds(self, *, cloned: bool = False) -> tuple[int, ...]:
        return ()

    def directory_fd(self) -> int | None:
        return None

    def release_pause_process(self) -> None:
        """Do nothing: there is no pause process."""

    def stats(self, *, detailed: bool = False) -> Stats:
        return Stats()

    def pids(self) -> tuple[int, ...]:
        return ()

    def freeze(self, *, wait: bool = True) -> None:
        raise Unsupported(f"cannot pause: the container has no cgroup ({self._reason})")

    def thaw(self) -> None:
        raise Unsupported(f"cannot resume: the container has no cgroup ({self._reason})")

    def frozen(self) -> bool:
        return False

    def kill(self) -> None:
        """Do nothing: the processes are not known."""

    def destroy(self, timeout: float = 2.0) -> None:
        """Do nothing: there is no directory."""

    def oom_kills(self) -> int:
        return 0

    def is_oom(self, kills: int) -> bool:
        return False

    def peak_memory(self) -> int:
        return 0

    def oom_fd(self) -> int | None:
        return None

    def limits(self) -> dict[str, str]:
        return {}

    def locations(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        """Do nothing: there is no descriptor."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class NullDriver:
    """The host's driver as far as permitted; ``host`` is None if no cgroup is mounted."""

    def __init__(
        self,
        host: CgroupDriver | None,
        reason: str = "no cgroup hierarchy is mounted",
        hint: str = IN_SCOPE,
    ) -> None:
        self._host = host
        self._reason = reason
        self._hint = hint
        self.name = host.name if host else "none"
        self.version = host.version if host else 2

    def create(self, path: str) -> AnyCgroup:
        if self._host is None:
            return NullCgroup(path, self._reason, self._hint)
        try:
            return self._host.create(path)
        except NotAuthorized as error:
            return NullCgroup(path, error.message, self._hint)

    def open(self, path: str) -> AnyCgroup:
        if self._host is None:
            return NullCgroup(path, self._reason, self._hint)
        try:
            return self._host.open(path)
        except NotFound:
            return NullCgroup(path)

    def usage(self, path: str) -> Usage:
        return self._host.usage(path) if self._host is not None else Usage()

    def controllers(self) -> frozenset[str]:
        return self._host.controllers() if self._host else frozenset()

    def features(self) -> frozenset[str]:
        return self._host.features() if self._host else frozenset()

    def warnings(self) -> tuple[str, ...]:
        return cgroup_limits.warnings(self.features(), self.version)


def requested_limits(resources: Resources) -> tuple[str, ...]:
    """Return the names of the spec's limits that have a value, except devices. Pure."""
    document: dict[str, Any] = msgspec.to_builtins(resources)
    return tuple(name for name, value in document.items() if name != "devices" and _is_limit(value))


def _is_limit(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_limit(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_is_limit(part) for part in value)
    return bool(value) and value != -1  # -1 means no limit
