"""Background tasks: held, logged, cancelled and waited for."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from jaula.tasks import BackgroundTasks

LOG = logging.getLogger("jaula.tests")


async def fail() -> None:
    raise ValueError("broken")


def test_a_failure_is_logged_with_its_context(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        tasks = BackgroundTasks(LOG, "resolver of x")
        tasks.spawn(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(tasks) == 0

    asyncio.run(run())
    (record,) = caplog.records
    assert record.getMessage() == "resolver of x: broken"
    assert record.exc_info is not None


def test_without_a_logger_the_owner_gets_the_exception(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with pytest.raises(ValueError, match="broken"):
            await BackgroundTasks().spawn(fail())

    asyncio.run(run())
    assert not caplog.records


def test_a_task_is_referenced_until_it_ends() -> None:
    async def wait(event: asyncio.Event) -> None:
        await event.wait()

    async def run() -> None:
        tasks, event = BackgroundTasks(LOG), asyncio.Event()
        tasks.spawn(wait(event))
        await asyncio.sleep(0)
        gc.collect()
        assert len(tasks) == 1
        event.set()
        await tasks.finish()
        assert len(tasks) == 0

    asyncio.run(run())


def test_closing_cancels_waits_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async def run() -> None:
        tasks = BackgroundTasks(LOG)
        for _ in range(3):
            tasks.spawn(work())
        await asyncio.sleep(0)
        await tasks.close()
        assert len(tasks) == 0

    asyncio.run(run())
    assert ended == [1, 1, 1]
    assert not caplog.records


def test_a_task_beyond_the_grace_period_is_cancelled() -> None:
    async def run() -> None:
        tasks = BackgroundTasks(LOG)
        quick = tasks.spawn(asyncio.sleep(0.01, "done"))
        slow = tasks.spawn(asyncio.sleep(60))
        await tasks.finish(0.2)
        assert await quick == "done"
        assert slow.cancelled()

    asyncio.run(run())


def test_a_task_that_closes_its_own_group_is_not_cancelled() -> None:
    async def run() -> None:
        tasks = BackgroundTasks(LOG)
        other = tasks.spawn(asyncio.sleep(60))

        async def close() -> str:
            await tasks.close()
            return "closed"

        assert await tasks.spawn(close()) == "closed"
        assert other.cancelled()

    asyncio.run(run())


def test_an_empty_group_is_finished_and_closed() -> None:
    async def run() -> None:
        tasks = BackgroundTasks(LOG)
        tasks.cancel()
        await tasks.finish(1)
        await tasks.close()

    asyncio.run(run())
