"""poll(2), to wait for descriptors; select(2) refuses those above 1023."""

from __future__ import annotations

import select


def readable(timeout: float | None, *fds: int) -> tuple[int, ...]:
    """Wait until a descriptor is readable, or its other end was closed. Return those that are.

    ``timeout`` is in seconds: 0 does not wait, None waits without end. A pidfd is readable when its
    process has exited.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return tuple(fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000))
