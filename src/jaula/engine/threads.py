"""Run synchronous code in threads for the event loop: streams in and out, own threads.

Streams have back pressure in both directions: a slow reader slows the producer, and neither holds
more than a few chunks in memory. The work of a stream waits for its client, so it has a thread of
its own. The pool has a few threads for all requests: its work waits for the disk only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import BinaryIO, ParamSpec, TypeVar

from jaula import spans
from jaula.errors import InvalidRequest

Item = TypeVar("Item")
Params = ParamSpec("Params")
Result = TypeVar("Result")
_END = object()


class AbandonedError(Exception):
    """The reader has stopped; ends the work of the producing thread."""


async def produce(
    work: Callable[[Callable[[Item], None]], None], *, abandon: Callable[[], None] = lambda: None
) -> AsyncIterator[Item]:
    """Run ``work`` in its own thread and yield what it emits; its exception is raised at the end.

    ``abandon`` is called when the reader stops, before the thread's end is awaited.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[object] = asyncio.Queue(8)
    abandoned = False

    def emit(item: object) -> None:
        if abandoned:
            raise AbandonedError
        asyncio.run_coroutine_threadsafe(queue.put(item), loop).result()

    def run() -> None:
        try:
            work(emit)
        finally:
            if not abandoned:
                asyncio.run_coroutine_threadsafe(queue.put(_END), loop).result()

    thread = in_own_thread(run)
    try:
        while (item := await queue.get()) is not _END:
            yield item  # type: ignore[misc]
        await thread
    finally:
        abandoned = True
        abandon()
        while not thread.done():
            while not queue.empty():
                queue.get_nowait()
            await asyncio.wait((thread,), timeout=0.05)
        with contextlib.suppress(AbandonedError):
            thread.result()


def in_own_thread(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Run ``work`` in a thread outside the pool, which does not delay the exit of the engine.

    It is for work that waits for a client, for another host, or for a file of a container.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def set_outcome(result: Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
            done.exception()  # retrieved, in case no task awaits the future any more
        else:
            done.set_result(result)  # type: ignore[arg-type]

    traced = spans.in_context(work)

    def run() -> None:
        result, failure = None, None
        try:
            result = traced()
        except BaseException as error:  # noqa: BLE001 - raised in the waiting task
            failure = error
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(set_outcome, result, failure)

    threading.Thread(target=run, name="own-thread", daemon=True).start()
    return done


async def feed(stream: AsyncIterator[bytes], descriptor: int) -> None:
    """Write a stream into a pipe whose reader is a thread, and close the descriptor.

    A reader that closes its end early is not an error.
    """
    os.set_blocking(descriptor, False)
    loop = asyncio.get_running_loop()
    try:
        async for chunk in stream:
            view = memoryview(chunk)
            while view:
                try:
                    view = view[os.write(descriptor, view) :]
                except BlockingIOError:
                    await _writable(loop, descriptor)
                except BrokenPipeError:
                    return
    finally:
        os.close(descriptor)


async def _writable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


async def consume(
    stream: AsyncIterator[bytes], work: Callable[[BinaryIO, Callable[[Item], None]], None]
) -> AsyncIterator[Item]:
    """Run ``work`` in its own thread on the stream as a file; yield what it emits."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    feeder = asyncio.ensure_future(feed(stream, writing))

    def run(emit: Callable[[Item], None]) -> None:
        with open(reading, "rb", buffering=1 << 20) as file:
            work(file, emit)

    try:
        async for item in produce(run):
            yield item
    finally:
        feeder.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeder


class TrackedStream:
    """A stream that records whether it was read to its end. Iterate it once.

    A file of :func:`consume` also ends when the client is gone. The attribute ``complete`` is set
    before such a file ends.
    """

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self.complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk
        self.complete = True

    def read_end(self, file: BinaryIO) -> None:
        """Read the rest of the file, which is padding.

        :raises InvalidRequest: when the stream ended too early.
        """
        while file.read(1 << 16):
            pass
        if not self.complete:
            raise InvalidRequest("the archive ends too early")


async def shielded(work: Awaitable[Result]) -> Result:
    """Run ``work`` to its end. A cancellation of the caller takes effect afterwards."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,))  # asyncio.shield would log an error that comes after a cancel
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # retrieved, since the caller gets the cancellation instead
        raise
    return task.result()


async def in_thread(
    work: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs
) -> Result:
    """Run ``work`` in a thread of the pool, and wait for its end even if cancelled."""
    return await shielded(asyncio.to_thread(work, *args, **kwargs))
