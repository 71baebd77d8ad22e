"""The time that a build's image tells: the present, or one that its maker fixed.

Source: reproducible-builds.org, "SOURCE_DATE_EPOCH", given as a build argument.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from jaula.errors import InvalidRequest

EPOCH = "SOURCE_DATE_EPOCH"
_DIGITS = 11
_SECOND = 1_000_000_000


class SourceDateEpoch:
    """``epoch`` is the fixed time in seconds since 1970, None where there is none."""

    def __init__(self, arguments: Mapping[str, str | None]) -> None:
        text = arguments.get(EPOCH)
        if text and not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise InvalidRequest(f"{EPOCH} {text[:40]!r} is no number of seconds since 1970")
        self.epoch = int(text) if text else None

    @property
    def newest(self) -> int | None:
        """The latest time of a file, in nanoseconds; None where time is not fixed."""
        return None if self.epoch is None else self.epoch * _SECOND

    def now(self) -> str:
        """What the history says of a step that is made now."""
        if self.epoch is not None:
            return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        now = datetime.fromtimestamp(time.time(), UTC)
        return now.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def of(self, created: str) -> str:
        """What it says of a step that was made then."""
        return created if self.epoch is None else self.now()
