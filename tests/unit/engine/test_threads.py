"""Work in threads that a cancellation does not interrupt."""

from __future__ import annotations

import asyncio
import threading

import pytest

from jaula.engine.threads import in_thread


def test_a_cancelled_caller_waits_for_the_end_of_its_thread() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        release.wait(10)
        ended.set()

    async def main() -> None:
        caller = asyncio.ensure_future(in_thread(work))
        await asyncio.to_thread(started.wait, 10)
        caller.cancel()
        await asyncio.wait((caller,), timeout=0.05)
        assert not caller.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended.is_set()

    asyncio.run(main())
