"""A pool of threads for long work. Threads end when there is no work.

The event loop's pool is not used: a slow registry would occupy it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class WorkerPool:
    """At most ``size`` threads. Further work waits in a queue."""

    def __init__(self, size: int, name: str) -> None:
        self._size = max(size, 1)
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0

    @property
    def busy(self) -> bool:
        """Return whether new work would wait."""
        return self._running >= self._size

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread. It reports its failures itself."""
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
