"""Reports of opened and executed files: fanotify(7).

Source: fanotify_init(2), fanotify_mark(2), include/uapi/linux/fanotify.h.

Facts about events: each one has a descriptor of the file that was opened, not of a path, and the
open of that descriptor causes no event. FAN_OPEN_EXEC is reported for the file in execve(2), its
interpreter and the dynamic linker, and not for a file that an interpreter reads. Two waiting events
of one process and one file are merged. A full queue is reported once (FAN_Q_OVERFLOW).

Facts about marks: a mark of a mount does not include the mounts below it or copies of it in other
mount namespaces; a mark of a file system includes all its mounts. Both need CAP_SYS_ADMIN in the
initial user namespace. A descriptor of O_PATH cannot be marked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from jaula.kernel.libc import function

FAN_CLOEXEC, FAN_NONBLOCK, FAN_CLASS_NOTIF = 0x1, 0x2, 0x0
FAN_UNLIMITED_QUEUE = 0x10
FAN_REPORT_PIDFD = 0x80  # Linux 5.15
FAN_MARK_ADD, FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM = 0x1, 0x10, 0x100
FAN_CLOSE_WRITE, FAN_OPEN, FAN_OPEN_EXEC, FAN_Q_OVERFLOW = 0x8, 0x20, 0x1000, 0x4000
_INFO_PIDFD = 4
_VERSION = 3
_EVENT = struct.Struct("=IBBHQii")
_INFO = struct.Struct("=BBH")
_BUFFER = 1 << 12  # bytes, for some 128 events, which have two descriptors each

_init = function("fanotify_init", ctypes.c_uint, ctypes.c_uint)
_mark = function(
    "fanotify_mark", ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p
)


class Event(NamedTuple):
    """An event. ``fd`` (-1 if there is none) and ``pidfd`` (-1) belong to the receiver.

    ``pid`` is 0 for a process outside of the receiver's pid namespace.
    """

    mask: int
    fd: int
    pid: int
    pidfd: int

    def close(self) -> None:
        """Close both descriptors."""
        for fd in (self.fd, self.pidfd):
            if fd >= 0:
                os.close(fd)


def create(*, unlimited: bool = False) -> int:
    """Return a non-blocking group, close-on-exec, whose events have a descriptor and a pidfd.

    An ``unlimited`` group has no limit of waiting events.

    :raises OSError: EPERM without CAP_SYS_ADMIN, ENOSYS without fanotify.
    """
    flags = FAN_CLOEXEC | FAN_NONBLOCK | FAN_CLASS_NOTIF
    flags |= FAN_UNLIMITED_QUEUE if unlimited else 0
    descriptors = os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME | os.O_NONBLOCK
    try:
        return _init(flags | FAN_REPORT_PIDFD, descriptors)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _init(flags, descriptors)


def mark(group: int, fd: int, mask: int, *, filesystem: bool = False) -> None:
    """Report events of the mount, or the whole file system, that a descriptor is on.

    :raises OSError: EPERM, ENOSPC at the limit of marks, EINVAL or ENODEV if it cannot be marked.
    """
    kind = FAN_MARK_FILESYSTEM if filesystem else FAN_MARK_MOUNT
    _mark(group, FAN_MARK_ADD | kind, mask, fd, None)


def read(group: int) -> list[Event]:
    """Return waiting events, at most as many as one read(2) returns; empty if there are none.

    :raises OSError: EMFILE when a descriptor cannot be opened; that event is lost.
    """
    try:
        data = os.read(group, _BUFFER)
    except BlockingIOError:
        return []
    return decode(data)


def decode(data: bytes) -> list[Event]:
    """Return the events of a buffer. Pure.

    :raises OSError: EPROTO when it is malformed.
    """
    events = []
    offset = 0
    while offset < len(data):
        if len(data) - offset < _EVENT.size:
            raise OSError(errno.EPROTO, "fanotify: truncated event")
        length, version, _, header, mask, fd, pid = _EVENT.unpack_from(data, offset)
        if version != _VERSION or not _EVENT.size <= header <= length <= len(data) - offset:
            raise OSError(errno.EPROTO, "fanotify: malformed event")
        events.append(
            Event(mask, max(fd, -1), pid, _pidfd(data[offset + header : offset + length]))
        )
        offset += length
    return events


def _pidfd(records: bytes) -> int:
    offset = 0
    while offset + _INFO.size <= len(records):
        kind, _, length = _INFO.unpack_from(records, offset)
        if length < _INFO.size or offset + length > len(records):
            raise OSError(errno.EPROTO, "fanotify: malformed information record")
        if kind == _INFO_PIDFD and length >= _INFO.size + 4:
            number: int = struct.unpack_from("=i", records, offset + _INFO.size)[0]
            return max(number, -1)  # FAN_NOPIDFD, FAN_EPIDFD: the process has exited
        offset += length
    return -1
