"""An event loop over epoll(7), with one handler for each descriptor."""

from __future__ import annotations

import select
from collections.abc import Callable


class EventLoop:
    """Level-triggered; a handler is called with the events of its descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._events: dict[int, int] = {}

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Watch a descriptor, or change the events; hang-ups and errors are always reported."""
        self._handlers[fd] = handler
        if fd not in self._events:
            self._epoll.register(fd, events)
        elif self._events[fd] != events:
            self._epoll.modify(fd, events)
        self._events[fd] = events

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor; call this before it is closed."""
        if self._events.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            del self._handlers[fd]

    def run_once(self, timeout: float | None = None) -> None:
        """Wait for ready descriptors and call their handlers.

        ``timeout`` is in seconds; None waits without a limit.
        """
        for fd, events in self._epoll.poll(-1 if timeout is None else timeout):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
