"""Something that is not as it should be, and what can be done about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.state.records import ContainerRecord


_SETTLED = 600 * 1_000_000_000  # nanoseconds; nothing is being made for so long


@dataclass(frozen=True)
class Finding:
    """``advice`` says what a repair does, or what a person can do where there is no repair."""

    area: str
    subject: str
    problem: str
    advice: str
    repair: Callable[[], object] | None = None

    def document(self, *, repaired: bool = False, failure: str = "") -> dict[str, Any]:
        """The finding in the API's form."""
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
    """What checks may read of the engine, from a thread, as it was when they began."""

    parts: Services
    records: tuple[ContainerRecord, ...]  # steps of builds too
    known: frozenset[str]  # ids of containers on record, being made, or being removed
    alive: frozenset[str]  # ids of containers with a process, or with something under way

    @property
    def begun(self) -> int:
        """What was changed before this moment was left by a former engine; ns since the epoch."""
        return self.parts.started_at

    def is_old(self, path: Path) -> bool:
        """Whether a directory was there before anything that is under way now was begun."""
        try:
            changed = path.lstat().st_ctime_ns
        except FileNotFoundError:
            return False
        return changed < self.begun or changed < time.time_ns() - _SETTLED
