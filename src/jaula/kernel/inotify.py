"""Reports of changed files: inotify(7).

Facts about cgroup files: the kernel reports a write(2) to any file of a cgroup, and changes of
cgroup.events; it does not report a process that is forked into a cgroup.
"""

from __future__ import annotations

import ctypes
import os
import struct

from jaula.kernel.libc import function

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8  # linux/inotify.h
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF = 0x400, 0x800
_EVENT = struct.Struct("iIII")

_init1 = function("inotify_init1", ctypes.c_int)
_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def create() -> int:
    """Return a non-blocking inotify descriptor, close-on-exec."""
    return _init1(os.O_CLOEXEC | os.O_NONBLOCK)


def add_watch(fd: int, path: str, mask: int) -> int:
    """Watch a path, and return the number that its events have."""
    return _add_watch(fd, os.fsencode(path), mask)


def changed(fd: int) -> set[int]:
    """Return the numbers of the watches that have events, and drop the events."""
    numbers: set[int] = set()
    while True:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return numbers
        offset = 0
        while offset < len(data):
            number, _, _, length = _EVENT.unpack_from(data, offset)
            numbers.add(number)
            offset += _EVENT.size + length
