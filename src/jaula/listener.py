"""A listening socket that accepts clients, also when the process is out of descriptors.

Facts about accept(2): out of descriptors (EMFILE, ENFILE) the client stays in the backlog, so the
socket stays readable, and a loop that polls it never sleeps. asyncio's server logs such an error
for each client that its backlog could have.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable

RESERVE = 64  # descriptors: a removal opens up to a few dozen
PAUSE_SECONDS = 1.0
_BATCH = 64  # clients that are accepted in one turn of the event loop
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger("jaula.engine")


class DescriptorReserve:
    """Descriptors that are held so that a client can be served when no other is free."""

    def __init__(self, size: int = RESERVE) -> None:
        self._size = size
        self._held: list[int] = []
        self.fill()

    def fill(self) -> bool:
        """Take descriptors until the reserve is full; return whether it is."""
        try:
            while len(self._held) < self._size:
                self._held.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in _SHORTAGE:
                raise
        return len(self._held) == self._size

    def release(self) -> bool:
        """Close the descriptors; return whether there were any."""
        held, self._held = self._held, []
        for descriptor in held:
            os.close(descriptor)
        return bool(held)


class Listener:
    """Accepts on a bound stream socket, which it owns. ``serve`` gets each client.

    If no descriptor is free, the reserve serves one client, and a pause follows. That is logged
    once until no client waits and the reserve is full again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        backlog: int,
        reserve: DescriptorReserve,
        serve: Callable[[socket.socket], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._reserve = reserve
        self._serve = serve
        self._short = False
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(backlog)
        loop.add_reader(sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                self._serve(self._accept_one())
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._drained()
                return
            except OSError as error:
                if error.errno not in _SHORTAGE:
                    raise
                self._wait(error)
                if not self._reserve.release():
                    return
                try:
                    self._serve(self._accept_one())
                except OSError:  # the client stays in the backlog
                    return
                return

    def _accept_one(self) -> socket.socket:
        client, _ = self._sock.accept()
        client.setblocking(False)
        return client

    def _wait(self, error: OSError) -> None:
        if not self._short:
            self._short = True
            _log.error(
                "clients wait: %s (raise the limit of open files, or end some clients)",
                error.strerror,
            )
        self._loop.remove_reader(self._sock.fileno())
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._reserve.fill()
        self._loop.add_reader(self._sock.fileno(), self._accept)
        self._accept()

    def _drained(self) -> None:
        """End the shortage when no client waits and the reserve is full."""
        if self._short and self._reserve.fill():
            self._short = False
            _log.info("clients are accepted again")

    def stop(self) -> None:
        """Stop accepting; clients wait."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        """Stop accepting and close the socket. Further calls do nothing."""
        if self._sock.fileno() >= 0:
            self.stop()
            self._sock.close()
