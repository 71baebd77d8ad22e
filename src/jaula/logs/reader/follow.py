"""Follow a ``json-file`` log that grows and is rotated, for the engine's event loop.

inotify(7) on the log's directory reports growth. If no watch can be created (the limit of instances
is reached), the file is polled ten times a second. It is polled every two seconds in any case.

:mod:`jaula.logs.reader.reader` determines which file comes next.
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

_POLL = 0.1  # seconds between polls without a watch
_POLL_WATCHED = 2.0  # seconds between polls with a watch
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
    """Yield batches of entries: the stored ones (the last ``tail`` lines), then new ones.

    The iterator ends at the time ``until``, or when ``stop`` is set and all entries are read.
    ``stop`` means that the container has exited and its log is closed.
    """
    selection = Selection(stdout, stderr, since, until)
    _, end = selection.bounds()
    with contextlib.closing(LogReader(path)) as reader, _watch(path) as changed:
        if tail is not None:
            end_position = reader.seek_end()
            # It reads compressed files whole. Other clients must not wait for that.
            stored = await asyncio.to_thread(read_tail, path, tail, selection, end_position)
            if stored:
                yield stored
        while True:
            stopping = stop.is_set()  # tested before the read, so that no earlier entry is missed
            changed.clear()
            while entries := reader.next_entries():
                if selected := select(entries, selection):
                    yield selected
                if until and timestamp.pad_fraction(entries[-1].time) >= end:
                    return
                await asyncio.sleep(0)
            if stopping or (until and time.time_ns() >= until):
                return
            await _wait_either(changed, stop)


@contextlib.contextmanager
def _watch(path: str) -> Iterator[asyncio.Event]:
    """Yield an event that is set when a file in the log's directory changes."""
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
        interval = _POLL_WATCHED
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


async def _wait_either(changed: asyncio.Event, stop: asyncio.Event) -> None:
    waits = {asyncio.ensure_future(changed.wait()), asyncio.ensure_future(stop.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
