"""Follow a log in files that grows and is rotated, in an event loop.

inotify(7) on the log's directory reports growth. If no watch can be created (the limit of instances
is reached), the file is polled ten times a second. It is polled every two seconds in any case.

The watch is read only at the end of the log: a reader that is late is not woken by each line. The
kernel merges equal events and drops those above its limit, so unread ones take little memory.

:mod:`jaula.logs.reader.log_reader` determines which file comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator

from jaula.kernel import inotify
from jaula.logs import timestamp
from jaula.logs.log_entry import LogEntry, Selection, select
from jaula.logs.pod_log import PodLog
from jaula.logs.reader.log_reader import open_log
from jaula.logs.reader.read import read_tail

_POLL = 0.1  # seconds between polls without a watch
_POLL_WATCHED = 2.0  # seconds between polls with a watch


async def follow(
    log: str | PodLog,
    stop: asyncio.Event,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: int | None = None,
    until: int | None = None,
    tail: int | None = None,
    on_open: Callable[[], None] = lambda: None,
) -> AsyncGenerator[list[LogEntry]]:
    """Yield batches of entries: the stored ones (the last ``tail`` lines), then new ones.

    A ``json-file`` log is its path.

    The iterator ends at the time ``until``, or when ``stop`` is set and all entries are read.
    ``stop`` means that the container has exited and its log is closed. ``on_open`` is called when
    the log is open: its files may be removed then.
    """
    selection = Selection(stdout, stderr, since, until)
    _, end = selection.bounds()
    path = log.name if isinstance(log, PodLog) else log
    with contextlib.closing(open_log(log)) as reader, _watch(path) as watch:
        if tail is not None:
            end_position = reader.seek_end()
            # It reads compressed files whole. Other clients must not wait for that.
            stored = await asyncio.to_thread(read_tail, log, tail, selection, end_position)
            on_open()
            if stored:
                yield stored
        else:
            on_open()
        while True:
            stopping = stop.is_set()  # tested before the read, so that no earlier entry is missed
            while entries := reader.next_entries():
                if selected := select(entries, selection):
                    yield selected
                if until and timestamp.pad_fraction(entries[-1].time) >= end:
                    return
                await asyncio.sleep(0)
            if stopping or (until and time.time_ns() >= until):
                return
            await watch.wait(stop)


@contextlib.contextmanager
def _watch(path: str) -> Iterator[_Watch]:
    """Yield the watch of the log's directory."""
    try:
        descriptor = inotify.create()
    except OSError:
        yield _Watch(None, _POLL)
        return
    try:
        mask = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_CREATE
        inotify.add_watch(descriptor, os.path.dirname(path) or ".", mask)
        watch = _Watch(descriptor, _POLL_WATCHED)
    except OSError:
        watch = _Watch(None, _POLL)
    try:
        yield watch
    finally:
        os.close(descriptor)


class _Watch:
    """An inotify descriptor, or none, and the seconds between polls."""

    def __init__(self, descriptor: int | None, interval: float) -> None:
        self._descriptor = descriptor
        self._interval = interval

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait for a change of the directory, for ``stop``, or until the next poll."""
        loop = asyncio.get_running_loop()
        changed: asyncio.Future[None] = loop.create_future()
        stopping = asyncio.ensure_future(stop.wait())
        descriptor = self._descriptor

        def drain(descriptor: int) -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, 65536)
            if not changed.done():
                changed.set_result(None)

        if descriptor is not None:
            loop.add_reader(descriptor, drain, descriptor)
        try:
            await asyncio.wait(
                (changed, stopping), timeout=self._interval, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            if descriptor is not None:
                loop.remove_reader(descriptor)
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
