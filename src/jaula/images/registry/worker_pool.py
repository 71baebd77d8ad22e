"""Threads for long work, a few at a time, that end when there is none.

They are no threads of the event loop's pool: a registry that is slow would occupy that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class WorkerPool:
    """At most ``size`` threads; what is given beyond that waits for its turn."""

    def __init__(self, size: int, name: str) -> None:
        self._size = max(size, 1)
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0

    @property
    def busy(self) -> bool:
        """Whether new work would wait."""
        return self._running >= self._size

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done; it reports its failures itself."""
        with self._lock:
            self._waiting.append(work)
            if self._running >= self._size:
                return
            self._running += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                work = self._waiting.popleft()
            work()
