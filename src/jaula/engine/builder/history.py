"""The last builds of BuildKit's clients, for ``buildx history``. They are kept in memory only."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

_MAX_RECORDS = 100  # of all callers


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One build that has ended. Times are in nanoseconds; ``error`` is empty after a success.

    ``ref`` is the client's id of the build, and ``attributes`` are the options that it sent.
    """

    ref: str
    frontend: str
    attributes: Mapping[str, str]
    created: int
    completed: int
    error: str = ""
    response: Mapping[str, str] = {}
    steps: int = 0
    cached: int = 0
    warnings: int = 0


class BuildHistory:
    """The records of an engine. A caller sees its own only."""

    def __init__(self) -> None:
        self._records: deque[tuple[str, BuildRecord]] = deque(maxlen=_MAX_RECORDS)

    def add(self, owner: str, record: BuildRecord) -> None:
        """Add a record; the oldest one may be dropped for it."""
        self._records.append((owner, record))

    def list(self, owner: str) -> list[BuildRecord]:
        """Return the records of a caller, oldest first."""
        return [record for key, record in self._records if key == owner]

    def remove(self, owner: str, ref: str) -> bool:
        """Remove a record of a caller; return whether it existed."""
        for entry in self._records:
            if entry[0] == owner and entry[1].ref == ref:
                self._records.remove(entry)
                return True
        return False
