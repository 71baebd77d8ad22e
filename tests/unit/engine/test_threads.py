"""Work in threads: what a cancellation does not interrupt, shares of callers, the stop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from harness.engine import PROJECT
from jaula import request_context
from jaula.engine.threads import CallerThreads, EngineStopping, in_thread
from jaula.request_context import RequestContext


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


class Blocked:
    """Works of callers that wait for a gate, in a pool."""

    def __init__(self, pool: CallerThreads) -> None:
        self.pool = pool
        self.gate = threading.Event()
        self._lock = threading.Lock()
        self.running: Counter[str] = Counter()

    def submit(self, caller: str, count: int) -> list[Future[None]]:
        """Submit works in the context of a request of a caller; '' is the engine itself."""

        def work() -> None:
            with self._lock:
                self.running[caller] += 1
            self.gate.wait(60)

        def request() -> list[Future[None]]:
            if caller:
                request_context.current.set(RequestContext("1", caller, "GET /"))
            return [self.pool.submit(work) for _ in range(count)]

        return contextvars.copy_context().run(request)

    def wait_for(self, caller: str, count: int) -> None:
        deadline = time.monotonic() + 30
        while self.running[caller] < count:
            assert time.monotonic() < deadline, self.running
            time.sleep(0.005)


@pytest.fixture
def blocked() -> Iterator[Blocked]:
    made = Blocked(CallerThreads(16, 4))
    yield made
    made.gate.set()
    made.pool.shutdown()


def test_a_caller_whose_work_never_ends_leaves_threads_to_others(blocked: Blocked) -> None:
    works = blocked.submit("certificate a", 100)
    blocked.wait_for("certificate a", 6)
    for caller in ("0", "", "5", "certificate b"):
        blocked.submit(caller, 1)
        blocked.wait_for(caller, 1)
    assert blocked.running["certificate a"] == 6
    blocked.gate.set()
    for work in works:
        work.result(30)
    assert blocked.running["certificate a"] == 100


def test_seven_callers_leave_threads_to_root(blocked: Blocked) -> None:
    blocked.submit("1", 20)
    blocked.wait_for("1", 6)  # the others would have shares of these, if they came before
    for number in range(2, 8):
        blocked.submit(str(number), 20)
    blocked.wait_for("2", 1)
    blocked.submit("0", 4)
    blocked.wait_for("0", 4)


def test_work_that_waited_for_its_share_is_done_when_others_have_ended(blocked: Blocked) -> None:
    first = blocked.submit("1", 20)
    blocked.wait_for("1", 6)
    second = blocked.submit("2", 20)
    blocked.gate.set()
    for work in (*first, *second):
        work.result(30)
    assert blocked.running == {"1": 20, "2": 20}


def test_an_abandoned_thread_is_replaced_and_no_task_waits_for_it(blocked: Blocked) -> None:
    running = blocked.submit("1", 6)
    blocked.wait_for("1", 6)
    waiting = blocked.submit("1", 3)
    blocked.pool.abandon()
    for work in (*running, *waiting):
        with pytest.raises(EngineStopping):
            work.result(0)
    assert blocked.pool.submit(lambda: 7).result(30) == 7
    assert blocked.submit("1", 6)
    blocked.wait_for("1", 12)
    blocked.gate.set()
    assert blocked.pool.submit(lambda: 8).result(30) == 8


def test_a_cancelled_work_that_waits_is_not_done(blocked: Blocked) -> None:
    blocked.submit("1", 6)
    blocked.wait_for("1", 6)
    (work,) = blocked.submit("1", 1)
    assert work.cancel()
    (after,) = blocked.submit("1", 1)
    blocked.gate.set()
    after.result(30)
    assert blocked.running["1"] == 7


def test_an_error_of_work_is_that_of_the_caller(blocked: Blocked) -> None:
    with pytest.raises(ZeroDivisionError):
        blocked.pool.submit(lambda: 1 // 0).result(30)


def test_no_work_begins_after_the_shutdown() -> None:
    pool = CallerThreads()
    assert pool.submit(lambda: 1).result(30) == 1
    pool.shutdown()
    with pytest.raises(EngineStopping):
        pool.submit(lambda: 1)


def test_the_stop_of_the_engine_does_not_wait_for_threads(tmp_path: Path) -> None:
    """Neither the tasks, nor the event loop, nor the interpreter, for either kind of thread."""
    script = tmp_path / "stop.py"
    script.write_text(
        "import asyncio, threading\n"
        "from jaula.engine import threads\n"
        "threads._STOP_WAIT = 0.2\n"
        "async def main():\n"
        "    pool = threads.CallerThreads()\n"
        "    asyncio.get_running_loop().set_default_executor(pool)\n"
        "    gate = threading.Event()\n"
        "    tasks = [asyncio.ensure_future(threads.in_thread(gate.wait)) for _ in range(20)]\n"
        "    tasks.append(threads.in_own_thread(gate.wait))\n"
        "    await asyncio.sleep(0.1)\n"
        "    threads.abandon_at_stop(pool)\n"
        "    found = await asyncio.gather(*tasks, return_exceptions=True)\n"
        "    assert {type(each) for each in found} == {threads.EngineStopping}, found\n"
        "    leftover = asyncio.ensure_future(threads.in_thread(gate.wait))\n"
        "    await asyncio.sleep(0.1)\n"
        "asyncio.run(main())\n"
        "print('ended')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
