"""Between the event loop and the synchronous parts: streams in and out of a worker thread.

Both ways have back pressure: a reader that is slow slows the producer, and neither holds more
than a few pieces in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, TypeVar

Item = TypeVar("Item")
_END = object()


class Abandoned(Exception):
    """Nobody reads any more; ends the producing thread's work."""


async def produced(work: Callable[[Callable[[Item], None]], None]) -> AsyncIterator[Item]:
    """What ``work`` emits from a thread of its own; its exception is raised at the end."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[object] = asyncio.Queue(8)
    abandoned = False

    def emit(item: object) -> None:
        if abandoned:
            raise Abandoned
        asyncio.run_coroutine_threadsafe(queue.put(item), loop).result()

    def run() -> None:
        try:
            work(emit)
        finally:
            if not abandoned:
                asyncio.run_coroutine_threadsafe(queue.put(_END), loop).result()

    thread = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        while (item := await queue.get()) is not _END:
            yield item  # type: ignore[misc]
        await thread
    finally:
        abandoned = True
        while not thread.done():
            while not queue.empty():
                queue.get_nowait()
            await asyncio.wait((thread,), timeout=0.05)
        with contextlib.suppress(Abandoned):
            thread.result()


async def feed(stream: AsyncIterator[bytes], descriptor: int) -> None:
    """Write a stream into a pipe whose reader is a thread; closes the descriptor.

    A reader that has read enough and closed its end is no error.
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


async def consumed(
    stream: AsyncIterator[bytes], work: Callable[[BinaryIO, Callable[[Item], None]], None]
) -> AsyncIterator[Item]:
    """Run ``work`` in a thread on the stream as a file; yields what it emits."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    feeding = asyncio.ensure_future(feed(stream, writing))

    def run(emit: Callable[[Item], None]) -> None:
        with open(reading, "rb", buffering=1 << 20) as file:
            work(file, emit)

    try:
        async for item in produced(run):
            yield item
    finally:
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeding
