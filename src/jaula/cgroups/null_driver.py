"""Where no cgroup can be made: a user without a delegated tree, above all on v1.

:class:`NullDriver` goes to the host's driver first. Where the kernel forbids it a cgroup, it gives a
:class:`NullCgroup` that holds nothing: the container runs with the caller's own limits, and one that
asks for limits of its own is refused.
"""

from __future__ import annotations

from typing import Any, Self

import msgspec

from jaula.cgroups import features
from jaula.cgroups.protocol import Cgroup as AnyCgroup
from jaula.cgroups.protocol import CgroupDriver, Stats
from jaula.errors import NotAuthorized, NotFound, Unsupported
from jaula.spec.runtime import Resources

IN_SCOPE = "run it in a delegated cgroup: systemd-run --user --scope -p Delegate=yes ..."


class NullCgroup:
    """Keeps the contract of :class:`jaula.cgroups.protocol.Cgroup` for want of a cgroup.

    Processes are not found by it: ``pids`` is empty, ``kill`` and ``destroy`` have nothing to do.
    """

    def __init__(self, path: str, reason: str = "no permission", hint: str = IN_SCOPE) -> None:
        self.path = path
        self._reason = reason
        self._hint = hint

    def apply(self, resources: Resources) -> tuple[str, ...]:
        """Device rules alone are passed over: without root there is no node they could open up."""
        if names := requested_limits(resources):
            raise Unsupported(
                f"cannot limit {', '.join(names)}: the container has no cgroup ({self._reason})",
                hint=self._hint,
            )
        return ()

    def add(self, pid: int) -> None:
        """The process stays where it is."""

    def entry(self) -> tuple[int, ...]:
        return ()

    def directory_fd(self) -> int | None:
        return None

    def settle(self) -> None:
        """Nothing was held."""

    def stats(self, *, detailed: bool = False) -> Stats:
        return Stats()

    def pids(self) -> tuple[int, ...]:
        return ()

    def freeze(self) -> None:
        raise Unsupported(f"cannot pause: the container has no cgroup ({self._reason})")

    def thaw(self) -> None:
        raise Unsupported(f"cannot resume: the container has no cgroup ({self._reason})")

    def frozen(self) -> bool:
        return False

    def kill(self) -> None:
        """There is no list of processes."""

    def destroy(self, timeout: float = 2.0) -> None:
        """There is no directory."""

    def oom_kills(self) -> int:
        return 0

    def peak_memory(self) -> int:
        return 0

    def oom_fd(self) -> int | None:
        return None

    def limits(self) -> dict[str, str]:
        return {}

    def locations(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        """There is no descriptor."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class NullDriver:
    """The host's driver as far as it may be used; ``host`` is None where no cgroup is mounted."""

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

    def controllers(self) -> frozenset[str]:
        return self._host.controllers() if self._host else frozenset()

    def features(self) -> frozenset[str]:
        return self._host.features() if self._host else frozenset()

    def warnings(self) -> tuple[str, ...]:
        return features.warnings(self.features(), self.version)


def requested_limits(resources: Resources) -> tuple[str, ...]:
    """The names in the spec of the limits that ask for something, devices apart. Pure."""
    document: dict[str, Any] = msgspec.to_builtins(resources)
    return tuple(name for name, value in document.items() if name != "devices" and _asks(value))


def _asks(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_asks(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_asks(part) for part in value)
    return bool(value) and value != -1  # -1 is "no limit", which holds
