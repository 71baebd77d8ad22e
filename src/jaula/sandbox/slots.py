"""Slots of sandboxed processes: how many of them run at once, and how many of one caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaula.caller_quota import CallerQuota
from jaula.sandbox.sandbox_worker import Worker, WorkerCancelled

_ROUND = 0.5  # seconds between two checks whether the request has ended


class Stop:
    """Ends the sandboxed process of a request, which may still wait for its slot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the process. Idempotent; may be called from any thread."""
        with self._lock:
            self._stopped = True
            if self._worker is not None:
                self._worker.cancel()

    def check(self) -> None:
        """Return if the request goes on.

        :raises WorkerCancelled: if it has ended.
        """
        if self._stopped:
            raise WorkerCancelled

    @contextmanager
    def ends(self, worker: Worker) -> Iterator[None]:
        """End ``worker`` with the request during the ``with`` statement.

        :raises WorkerCancelled: if it has ended.
        """
        with self._lock:
            self._worker = worker
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._worker = None


class WorkerSlots:
    """A number of slots that callers share. One caller gets at most a half of what is free.

    A request waits for a slot: each process has a limit of time, so each slot becomes free.
    """

    def __init__(self, total: int) -> None:
        self._free = threading.Condition()
        self._quota = CallerQuota(total, 0)

    @contextmanager
    def take(self, caller: str, check: Callable[[], None]) -> Iterator[None]:
        """Hold a slot of ``caller``. Blocks until it is free.

        ``check`` raises an error if the request has ended.
        """
        with self._free:
            while not self._quota.take(caller, 1, root=False):
                check()
                self._free.wait(_ROUND)
        try:
            check()
            yield
        finally:
            with self._free:
                self._quota.give_back(caller, 1)
                self._free.notify_all()
