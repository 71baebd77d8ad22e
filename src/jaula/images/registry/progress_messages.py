"""Progress messages of Docker's API, and their queue from many threads to one reader.

Source: moby ``pkg/jsonmessage`` and ``pkg/streamformatter``. Each layer has its own line. A slow
reader gets the newest state of each line, not every step, so the queue does not grow.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic

from jaula.spec.units import human_size

Message = dict[str, object]

INTERVAL = 0.1  # seconds between two updates of one line
_WIDTH = 50  # cells


def status(text: str, id: str = "") -> Message:
    """Return a status message. With an id it replaces the former message of that id."""
    if not id:
        return {"status": text}
    return {"status": text, "progressDetail": {}, "id": id}


def amount(text: str, id: str, current: int, total: int) -> Message:
    """Return a message with a progress bar; ``current`` and ``total`` are bytes."""
    return {
        "status": text,
        "progressDetail": {"current": current, "total": total},
        "progress": bar(current, total),
        "id": id,
    }


def bar(current: int, total: int) -> str:
    """Return Docker's progress bar of fifty cells, with the amounts."""
    if total <= 0:
        return f"{human_size(current):>8}"
    cells = min(current * 100 // total // 2, _WIDTH)
    box = f"[{'=' * cells}>{' ' * (_WIDTH - cells)}] "
    return box + (
        f"{human_size(current):>8}" + (f"/{human_size(total)}" if current <= total else "")
    )


class ProgressBoard:
    """A queue of messages to one reader. Any thread may add messages."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: dict[tuple[object, ...], Message] = {}
        self._updated: dict[object, float] = {}
        self._count = 0

    def post(self, message: Message) -> None:
        """Add a message that the reader must get."""
        with self._changed:
            self._count += 1
            self._messages[self._count,] = message
            self._changed.notify()

    def update(self, message: Message, *, last: bool = False) -> None:
        """Update a progress bar. Drop the update if the last one of the line is recent.

        ``last`` marks the final update, which is never dropped.
        """
        line = message["id"], message["status"]
        now = monotonic()
        with self._changed:
            if not last and now - self._updated.get(line, 0.0) < INTERVAL:
                return
            self._updated[line] = now
            self._messages[line] = message
            self._changed.notify()

    def wake(self) -> None:
        """Wake the reader, so that it checks its condition again."""
        with self._changed:
            self._changed.notify()

    def take(self, seconds: float) -> Iterator[Message]:
        """Yield the messages added since the last call.

        If there are none, wait for up to ``seconds``.
        """
        with self._changed:
            if not self._messages:
                self._changed.wait(seconds)
            messages, self._messages = self._messages, {}
        yield from messages.values()
