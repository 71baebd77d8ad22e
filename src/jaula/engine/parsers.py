"""Parse bytes of strangers in sandboxed processes, for requests of the event loop.

The work of a request ends with it. A caller has a share of the processes, so no caller waits for
those of another for longer than their limits of time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from jaula import request_context
from jaula.engine.threads import in_own_thread
from jaula.sandbox.sandbox_limits import Limits
from jaula.sandbox.sandbox_worker import Answer, Worker
from jaula.sandbox.slots import Stop, WorkerSlots
from jaula.sandbox.start_sandbox import Task

if TYPE_CHECKING:
    from jaula.images.dockerfile.budget import BuildBudget

SLOTS = WorkerSlots(8)
"""The processes of this engine at one time."""

TEXTS = WorkerSlots(4)
"""Threads that work on the texts of builds at one time. They share the interpreter with the event
loop, which each of them delays."""

Result = TypeVar("Result")


async def in_sandbox(
    work: Callable[[Stop], Result], release: Callable[[], object] = lambda: None
) -> Result:
    """Run ``work`` in a thread of its own, while it holds a slot of the request's caller.

    ``release`` is called in the thread at its end.
    """
    request = request_context.current.get()
    caller = "" if request is None else request.user
    stop = Stop()

    def run() -> Result:
        try:
            with SLOTS.take(caller, stop.check):
                return work(stop)
        finally:
            release()

    return await _until_cancelled(run, stop)


async def _until_cancelled(run: Callable[[], Result], stop: Stop) -> Result:
    """Run work in a thread of its own; ``stop`` ends it when the request ends."""
    task = in_own_thread(run)
    try:
        return await task
    except asyncio.CancelledError:
        stop.stop()
        raise


async def parse(
    task: Task,
    payload: bytes,
    descriptors: Sequence[int] = (),
    *,
    limits: Limits,
    answer: Answer | None = None,
) -> bytes:
    """Return the result of one call of a sandboxed process.

    The descriptors are those of the caller, which may close them when this returns.

    :raises InvalidRequest: if the work exceeds a limit, or as the parser says.
    """

    held = [os.dup(descriptor) for descriptor in descriptors]  # the thread may end later

    def work(stop: Stop) -> bytes:
        with Worker(task, limits, answer) as worker, stop.ends(worker):
            return worker.call(payload, held)

    def release() -> None:
        for descriptor in held:
            os.close(descriptor)

    return await in_sandbox(work, release)


async def in_text_thread(owner: str, budget: BuildBudget, work: Callable[[], Result]) -> Result:
    """Run work on the text of a build outside the event loop, and spend its processor time.

    :raises DockerfileError: when the build has spent its budget.
    """
    stop = Stop()

    def run() -> Result:
        with TEXTS.take(owner, stop.check), budget.timed():
            return work()

    return await _until_cancelled(run, stop)
