"""Group commit: an answer leaves after the records that it reports are on the disk.

Clients that wait at the same time share one fsync of the database's log. It runs in a thread of its
own, so neither the event loop nor long work in the pool of threads delays it, or is delayed by it.
The thread is kept: the event loop waits until a new one runs.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures.thread import ThreadPoolExecutor

from jaula import metrics, spans
from jaula.state.database import Database
from jaula.tasks import awaited_task


class GroupCommit:
    """Waits until changes of the database are on the disk; without ``durable`` it never waits."""

    def __init__(self, database: Database, *, durable: bool) -> None:
        self._database = database
        self._durable = durable
        self._synced = 0  # changes
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "group-commit")

    async def wait(self) -> None:
        """Wait until every change made before this call is on the disk.

        :raises Unavailable: when the disk does not take them.
        """
        changes = self._database.changes
        while self._durable and self._synced < changes:
            # A sync that runs already may have begun before the newest change.
            self._running = self._running or awaited_task(self._sync())
            await asyncio.shield(self._running)

    async def _sync(self) -> None:
        try:
            changes, started = self._database.changes, time.perf_counter()
            work = spans.in_context(self._database.sync)
            await asyncio.get_running_loop().run_in_executor(self._thread, work)
            metrics.SYNCS.observe(time.perf_counter() - started)
            metrics.SYNCED_CHANGES.add(by=changes - self._synced)
            self._synced = changes
        finally:
            self._running = None
