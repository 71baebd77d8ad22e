"""Background tasks of one owner on an event loop.

The loop itself holds tasks by weak references only, so their owner has to hold them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import logging

_T = TypeVar("_T")


def awaited_task(work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Start a task whose failure is raised in the tasks that wait for it, and nowhere else.

    The loop does not report the failure if all of them were cancelled before. The caller holds it.
    """
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


class BackgroundTasks:
    """Holds tasks until they end and logs each failure, after ``context``.

    Without ``log`` the owner awaits the tasks and gets their failures itself.
    """

    def __init__(
        self, log: logging.Logger | None = None, context: str = "background work failed"
    ) -> None:
        self._log = log
        self._context = context
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task on the running loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._log is None or task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._log.error("%s: %s", self._context, error, exc_info=error)

    def cancel(self) -> None:
        """Cancel all tasks without waiting for them."""
        for task in tuple(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """Cancel all tasks but the calling one and wait for their end."""
        await self._cancel(self._others())

    async def finish(self, timeout: float | None = None) -> None:
        """Wait for all tasks but the calling one; cancel those that take longer, in seconds."""
        if tasks := self._others():
            _, late = await asyncio.wait(tasks, timeout=timeout)
            await self._cancel(late)

    def _others(self) -> set[asyncio.Task[Any]]:
        return self._tasks - {asyncio.current_task()}

    @staticmethod
    async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # retrieved, so that the loop does not report it once more
