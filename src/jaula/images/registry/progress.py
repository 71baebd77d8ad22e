"""Progress as Docker's API tells it, and its way from many threads to one reader.

Source: moby ``pkg/jsonmessage`` and ``pkg/streamformatter``. Each layer has a line of its own; a
reader who is slow sees the newest state of each line, not every step on the way, so nothing grows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic

from jaula.spec.units import human_size

Message = dict[str, object]

INTERVAL = 0.1  # seconds between two amounts of one layer
_WIDTH = 50


def status(text: str, id: str = "") -> Message:
    """A line: without an id of its own it stays, with one it replaces the former of that id."""
    if not id:
        return {"status": text}
    return {"status": text, "progressDetail": {}, "id": id}


def amount(text: str, id: str, current: int, total: int) -> Message:
    """A line with a bar: bytes that are done, and all."""
    return {
        "status": text,
        "progressDetail": {"current": current, "total": total},
        "progress": bar(current, total),
        "id": id,
    }


def bar(current: int, total: int) -> str:
    """Docker's bar of fifty cells, with the numbers."""
    if total <= 0:
        return f"{human_size(current):>8}"
    cells = min(current * 100 // total // 2, _WIDTH)
    box = f"[{'=' * cells}>{' ' * (_WIDTH - cells)}] "
    return box + (
        f"{human_size(current):>8}" + (f"/{human_size(total)}" if current <= total else "")
    )


class ProgressBoard:
    """Messages on their way to one reader. Put by any thread, taken by one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: dict[tuple[object, ...], Message] = {}
        self._told: dict[object, float] = {}
        self._count = 0

    def say(self, message: Message) -> None:
        """Put a line that the reader is to see."""
        with self._changed:
            self._count += 1
            self._messages[self._count,] = message
            self._changed.notify()

    def tell(self, message: Message, *, last: bool = False) -> None:
        """Put an amount: dropped where one of the same line came just before, but for the last."""
        line = message["id"], message["status"]
        now = monotonic()
        with self._changed:
            if not last and now - self._told.get(line, 0.0) < INTERVAL:
                return
            self._told[line] = now
            self._messages[line] = message
            self._changed.notify()

    def wake(self) -> None:
        """Have the reader look again at what it waits for."""
        with self._changed:
            self._changed.notify()

    def take(self, seconds: float) -> Iterator[Message]:
        """What came since the last time; waits for something, or for a moment."""
        with self._changed:
            if not self._messages:
                self._changed.wait(seconds)
            found, self._messages = self._messages, {}
        yield from found.values()
