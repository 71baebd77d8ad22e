"""A finding of a check, and the inputs of checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord


_EXIT_TIME = 2.0  # seconds for what the kernel or a shim removes after an exit
_POLL_INTERVAL = 0.25  # seconds
_MAX_CREATION_TIME = 600 * 1_000_000_000  # nanoseconds; the creation of no object takes longer


@dataclass(frozen=True)
class Problem:
    """A defect. ``advice`` says what the repair does, or without one what the user can do."""

    area: str
    subject: str
    problem: str
    advice: str
    repair: Callable[[], object] | None = None
    container_id: str = ""  # the repair takes the lock of this container, which must not run then

    def document(self, *, repaired: bool = False, failure: str = "") -> dict[str, Any]:
        """Return the finding as a document of the API."""
        return {
            "Area": self.area,
            "Subject": self.subject,
            "Problem": self.problem,
            "Advice": self.advice,
            "Repairable": self.repair is not None,
            "Repaired": repaired,
            "Failure": failure,
        }


@dataclass(frozen=True)
class FsckInputs:
    """The state of the engine at the start of a check, for threads."""

    services: Services
    records: tuple[ContainerRecord, ...]  # including build steps
    known: frozenset[str]  # ids of containers with a record, in creation, or in removal
    alive: frozenset[str]  # ids of containers with a process, or with an operation in progress

    @property
    def engine_start(self) -> int:
        """The start of this engine, in nanoseconds since 1970; older files are not its own."""
        return self.services.started_at

    def is_running(self, container_id: str) -> bool:
        """Return whether a container runs, an operation on it is in progress, or its init waits.

        Read at the time of the call: a start may have begun after these inputs were taken.
        """
        if container_id in self.services.sandbox_pool.init_ids:
            return True
        store = self.services.container_store
        container = store.get(container_id)
        if container is not None:
            return container.lock.locked() or (container.live and container.shim is not None)
        return any(step.id == container_id for step in store.steps())

    def strays(self, listing: Callable[[], Iterable[tuple[str, str]]]) -> list[tuple[str, str]]:
        """Return the objects of a listing that belong to no running container.

        ``listing`` returns (container id, name) of objects that the kernel has. An object that
        disappears within two seconds, as after an exit, is not a stray.
        """
        strays = {item for item in listing() if not self.is_running(item[0])}
        deadline = time.monotonic() + _EXIT_TIME
        while strays and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL)
            strays &= {item for item in listing() if not self.is_running(item[0])}
        return sorted(strays)

    def is_old(self, path: Path) -> bool:
        """Return whether a directory is too old to belong to an operation in progress."""
        try:
            changed = path.lstat().st_ctime_ns
        except FileNotFoundError:
            return False
        return changed < self.engine_start or changed < time.time_ns() - _MAX_CREATION_TIME
