"""The end of work that nobody waits for any more.

A thread that reads from a socket is woken by shutting the socket down; one that waits for a moment
waits on :meth:`Cancellation.pause`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jaula.errors import JaulaError


class Cancelled(JaulaError):
    """Nobody waits for the result."""

    def __init__(self) -> None:
        super().__init__("the operation was cancelled")


class Cancellation:
    """One switch, from running to cancelled. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()

    @property
    def done(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """End everything that is held by this; again is harmless."""
        with self._lock:
            self._event.set()
            for held in self._sockets:
                interrupt(held)

    def check(self) -> None:
        """Raise :class:`Cancelled` where it is so."""
        if self._event.is_set():
            raise Cancelled

    def pause(self, seconds: float) -> None:
        """Wait; raises :class:`Cancelled` as soon as it is so."""
        if self._event.wait(seconds):
            raise Cancelled

    @contextmanager
    def interrupting(self, held: socket.socket) -> Iterator[None]:
        """Shut ``held`` down if the work is cancelled meanwhile."""
        with self._lock:
            self._sockets.add(held)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._sockets.discard(held)


def interrupt(held: socket.socket) -> None:
    """Wake whoever reads or writes there. The plain method: TLS state belongs to its thread."""
    try:
        socket.socket.shutdown(held, socket.SHUT_RDWR)
    except OSError:
        return  # not connected any more
