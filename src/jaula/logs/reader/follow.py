"""Following a ``json-file`` log that grows and is rotated, for the engine's event loop.

The kernel tells of growth by inotify on the log's directory; where no watch can be had (the limit
of instances is reached) the file is looked at ten times a second, and now and then in any case.

Which file comes after the one that is read is :mod:`jaula.logs.reader.reader`'s affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import AsyncIterator, Iterator

from jaula.kernel.libc import function
from jaula.logs import timestamp
from jaula.logs.entry import LogEntry, Selection, select
from jaula.logs.reader.read import read_tail
from jaula.logs.reader.reader import LogReader

_POLL = 0.1  # seconds, without a watch
_LOOK = 2.0  # seconds, with one
_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100  # linux/inotify.h

_inotify_init1 = function("inotify_init1", ctypes.c_int)
_inotify_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


async def follow(
    path: str,
    stop: asyncio.Event,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: int | None = None,
    until: int | None = None,
    tail: int | None = None,
) -> AsyncIterator[list[LogEntry]]:
    """Batches of records: those that are stored (the last ``tail`` lines), then those to come.

    Ends when ``stop`` is set (the container has ended and its log is closed) and all is read, or
    when ``until`` has come.
    """
    selection = Selection(stdout, stderr, since, until)
    _, end = selection.bounds()
    with contextlib.closing(LogReader(path)) as source, _watch(path) as changed:
        if tail is not None:
            place = source.skip()
            # Packed files are read whole for it, for which other clients shall not wait.
            stored = await asyncio.to_thread(read_tail, path, tail, selection, place)
            if stored:
                yield stored
        while True:
            ending = stop.is_set()  # asked before the read: what was written before is then seen
            changed.clear()
            while records := source.more():
                if chosen := select(records, selection):
                    yield chosen
                if until and timestamp.pad_fraction(records[-1].time) >= end:
                    return
                await asyncio.sleep(0)
            if ending or (until and time.time_ns() >= until):
                return
            await _either(changed, stop)


@contextlib.contextmanager
def _watch(path: str) -> Iterator[asyncio.Event]:
    """An event that is set when something happens in the log's directory."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        watch = _inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        with _timer(loop, changed, _POLL):
            yield changed
        return

    def drain() -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(watch, 65536)
        changed.set()

    try:
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        _inotify_add_watch(watch, os.fsencode(os.path.dirname(path) or "."), mask)
        interval = _LOOK
        loop.add_reader(watch, drain)
    except OSError:
        interval = _POLL
    try:
        with _timer(loop, changed, interval):
            yield changed
    finally:
        loop.remove_reader(watch)
        os.close(watch)


@contextlib.contextmanager
def _timer(
    loop: asyncio.AbstractEventLoop, changed: asyncio.Event, interval: float
) -> Iterator[None]:
    handle: asyncio.TimerHandle | None = None

    def tick() -> None:
        nonlocal handle
        changed.set()
        handle = loop.call_later(interval, tick)

    tick()
    try:
        yield
    finally:
        if handle is not None:
            handle.cancel()


async def _either(changed: asyncio.Event, stop: asyncio.Event) -> None:
    waits = {asyncio.ensure_future(changed.wait()), asyncio.ensure_future(stop.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
