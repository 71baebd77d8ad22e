"""Cancel work whose result no client waits for any more.

A thread that reads from a socket is woken by shutting the socket down. A thread that waits for a
time waits in :meth:`Cancellation.pause`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaula.errors import JaulaError


class Cancelled(JaulaError):
    """No client waits for the result any more."""

    def __init__(self) -> None:
        super().__init__("the operation was cancelled")


class Cancellation:
    """A switch from running to cancelled. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._ends: set[Callable[[], object]] = set()

    @property
    def done(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Cancel the work and shut down its sockets. Idempotent."""
        with self._lock:
            self._event.set()
            for sock in self._sockets:
                interrupt(sock)
            for end in self._ends:
                end()

    def check(self) -> None:
        """Return if the work is not cancelled.

        :raises Cancelled: if it is.
        """
        if self._event.is_set():
            raise Cancelled

    def pause(self, seconds: float) -> None:
        """Wait for ``seconds``.

        :raises Cancelled: as soon as the work is cancelled.
        """
        if self._event.wait(seconds):
            raise Cancelled

    @contextmanager
    def interrupting(self, sock: socket.socket) -> Iterator[None]:
        """Shut ``sock`` down if the work is cancelled during the ``with`` statement."""
        with self._lock:
            self._sockets.add(sock)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)

    @contextmanager
    def calling(self, end: Callable[[], object]) -> Iterator[None]:
        """Call ``end``, which does not block, if the work is cancelled during the ``with``."""
        with self._lock:
            self._ends.add(end)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._ends.discard(end)


def interrupt(sock: socket.socket) -> None:
    """Wake the thread that reads or writes ``sock``.

    Call the method of the plain socket: TLS state belongs to the thread that uses it.
    """
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # no longer connected
