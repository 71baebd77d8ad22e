"""Run synchronous code in threads for the event loop: streams in and out, own threads.

Streams have back pressure in both directions: a slow reader slows the producer, and neither holds
more than a few chunks in memory. The work of a stream waits for its client, so it has a thread of
its own. The pool has a few threads for all requests: its work waits for the disk only. A caller has
a share of them (:class:`CallerThreads`). The stop of the engine waits a few seconds for threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.thread import ThreadPoolExecutor
from typing import Any, BinaryIO, ParamSpec, TypeVar

from jaula import request_context, spans
from jaula.caller_quota import CallerQuota
from jaula.errors import InvalidRequest, Unavailable

Item = TypeVar("Item")
Params = ParamSpec("Params")
Result = TypeVar("Result")
_END = object()
_THREADS = 16  # of the pool; each is made when it is needed
_ROOT_THREADS = 4  # of them, which only root and the engine itself may use
_STOP_WAIT = 5.0  # seconds that the stop of the engine waits for work of threads
_ENGINE = ""  # caller of the engine's own work
_ROOT = "0"  # key of root as a caller
_own_threads: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()


class AbandonedError(Exception):
    """The reader has stopped; ends the work of the producing thread."""


class EngineStopping(Unavailable):
    """The engine stops, and does not wait for the work of a thread."""


class _Work:
    """A call for the pool."""

    __slots__ = ("call", "caller", "future")

    def __init__(self, call: Callable[[], Any], caller: str) -> None:
        self.call = call
        self.caller = caller
        self.future: Future[Any] = Future()


class CallerThreads(ThreadPoolExecutor):
    """The pool of threads for blocking work, of which each caller has a share.

    The caller is that of the request in whose context the work is submitted. Its work waits while
    it has as many threads as it may have (:mod:`jaula.caller_quota`), so a request that blocks a
    thread for hours keeps no thread from other callers. The engine's own work has no share. The
    threads are daemons: no exit waits for them.

    It is a ``ThreadPoolExecutor`` because an event loop accepts no other default executor.
    """

    def __init__(self, threads: int = _THREADS, root_threads: int = _ROOT_THREADS) -> None:
        super().__init__(threads)
        self._size = threads
        self._quota = CallerQuota(threads, root_threads)
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()  # the next caller first
        self._running: set[_Work] = set()
        self._count = self._idle = 0
        self._closed = False

    def submit(
        self, fn: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs
    ) -> Future[Result]:
        request = request_context.current.get()
        work = _Work(lambda: fn(*args, **kwargs), request.user if request else _ENGINE)
        with self._changed:
            if self._closed:
                raise EngineStopping("the engine stops")
            self._waiting.setdefault(work.caller, deque()).append(work)
            if self._idle:
                self._wake()
            elif self._count < self._size:
                self._count += 1
                threading.Thread(target=self._work, name="pool", daemon=True).start()
        return work.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more work, and end idle threads. Nothing waits for the others."""
        with self._changed:
            self._closed = True
            self._idle = 0
            self._changed.notify_all()

    def abandon(self) -> None:
        """Let every waiting task continue with :class:`EngineStopping`.

        A thread that works ends with its work. Other threads take its place.
        """
        with self._changed:
            works = [*self._running, *(each for works in self._waiting.values() for each in works)]
            for work in self._running:
                self._quota.give_back(work.caller, 1)
            self._count -= len(self._running)
            self._running.clear()
            self._waiting.clear()
        for work in works:
            _abandon(work.future)

    def _wake(self) -> None:
        """Let one idle thread look for work. The caller has the lock."""
        self._idle -= 1
        self._changed.notify()

    def _next(self) -> _Work | None:
        """Return the next work whose caller may have a thread. The caller has the lock."""
        for caller in self._waiting:
            if self._quota.take(caller, 1, root=caller in (_ENGINE, _ROOT)):
                works = self._waiting[caller]
                work = works.popleft()
                if works:
                    self._waiting.move_to_end(caller)
                else:
                    del self._waiting[caller]
                self._running.add(work)
                return work
        return None

    def _work(self) -> None:
        work: _Work | None = None
        while True:
            with self._changed:
                if work is not None:
                    if work not in self._running:
                        return  # abandoned
                    self._running.remove(work)
                    self._quota.give_back(work.caller, 1)
                while (work := self._next()) is None:
                    if self._closed:
                        self._count -= 1
                        return
                    self._idle += 1
                    self._changed.wait()
                if self._waiting and self._idle:
                    self._wake()
            if work.future.set_running_or_notify_cancel():
                _run(work)


def _run(work: _Work) -> None:
    """Call the work, and set the outcome unless it was abandoned."""
    result, failure = None, None
    try:
        result = work.call()
    except BaseException as error:  # noqa: BLE001 - raised in the waiting task
        failure = error
    with contextlib.suppress(InvalidStateError):
        if failure is not None:
            work.future.set_exception(failure)
        else:
            work.future.set_result(result)


def _abandon(future: Future[Any] | asyncio.Future[Any]) -> None:
    if not future.done():
        with contextlib.suppress(InvalidStateError):  # its thread has ended at this moment
            future.set_exception(EngineStopping("the engine stops"))


def abandon_at_stop(threads: CallerThreads) -> None:
    """Let no task wait for a thread any longer than a few seconds, from now on."""
    loop = asyncio.get_running_loop()

    def abandon() -> None:
        threads.abandon()
        for future in tuple(_own_threads):
            if future.get_loop() is loop:
                _abandon(future)
        loop.call_later(_STOP_WAIT, abandon)

    loop.call_later(_STOP_WAIT, abandon)


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


async def in_request_thread(work: Callable[[Callable[[], bool]], Result]) -> Result:
    """Run ``work`` in a thread of its own.

    Its argument returns whether no request waits for the result any more, or its client is gone:
    the work ends then.

    :raises ClientGone: when the client left meanwhile.
    """
    ended, is_gone = threading.Event(), request_context.client_check()
    try:
        result = await in_own_thread(lambda: work(lambda: ended.is_set() or is_gone()))
    finally:
        ended.set()
    request_context.check_client()
    return result


def in_own_thread(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Run ``work`` in a thread outside the pool, which does not delay the exit of the engine.

    It is for work that waits for a client, for another host, or for a file of a container.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()
    _own_threads.add(done)

    def set_outcome(result: Result | None, error: BaseException | None) -> None:
        if done.done():  # cancelled, or abandoned
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
    """Run ``work`` in its own thread on the stream as a file; yield what it emits.

    The file ends when the reader stops: the thread does not wait for the client any longer.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    feeder = asyncio.ensure_future(feed(stream, writing))
    stopped = False

    def run(emit: Callable[[Item], None]) -> None:
        try:
            with open(reading, "rb", buffering=1 << 20) as file:
                work(file, emit)
        except Exception as error:
            if stopped:  # the file has ended too early for it
                raise AbandonedError from error
            raise

    def stop() -> None:
        nonlocal stopped
        stopped = True
        feeder.cancel()

    try:
        async for item in produce(run, abandon=stop):
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
