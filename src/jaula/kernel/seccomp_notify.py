"""Notifications of seccomp filters: seccomp_unotify(2), include/uapi/linux/seccomp.h.

Facts about waiting: a listener that was readable may have nothing to receive, if the thread was
killed meanwhile. Receiving then waits for the next call. So each listener needs a thread.
"""

from __future__ import annotations

import fcntl
import struct
from typing import NamedTuple


class Notification(NamedTuple):
    """A call that a thread waits in: struct seccomp_notif. ``pid`` is that of the thread."""

    id: int
    pid: int
    number: int
    architecture: int
    arguments: tuple[int, ...]


_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_NOTIF_RECV = 0xC0502100  # _IOWR('!', 0, struct seccomp_notif)
_NOTIF_SEND = 0xC0182101  # _IOWR('!', 1, struct seccomp_notif_resp)
_NOTIF_ID_VALID = 0x40082102  # _IOW('!', 2, __u64)
_FLAG_CONTINUE = 1


def receive_notification(listener: int) -> Notification:
    """Wait for a call and return it.

    :raises OSError: ENOENT when the thread was killed meanwhile, or no process has the filter.
    """
    buffer = bytearray(_NOTIFICATION.size)
    fcntl.ioctl(listener, _NOTIF_RECV, buffer)
    id, pid, _, number, architecture, _, *arguments = _NOTIFICATION.unpack(buffer)
    return Notification(id, pid, number, architecture, tuple(arguments))


def continue_call(listener: int, id: int) -> None:
    """Let the kernel make a call that a thread waits in.

    :raises OSError: ENOENT when the thread has ended.
    """
    fcntl.ioctl(listener, _NOTIF_SEND, bytearray(_RESPONSE.pack(id, 0, 0, _FLAG_CONTINUE)))


def is_waiting(listener: int, id: int) -> bool:
    """Return whether the thread still waits, so that what was read by its pid is of it."""
    try:
        fcntl.ioctl(listener, _NOTIF_ID_VALID, struct.pack("=Q", id))
    except OSError:
        return False
    return True
