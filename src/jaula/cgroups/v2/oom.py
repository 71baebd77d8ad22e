"""Word of memory running out on v2: inotify on ``memory.events``.

Source: kernel ``admin-guide/cgroup-v2.rst``: a change of a non-root file with events generates a
file modified event. The same file counts other events, so the reader compares ``oom_kill``.
"""

from __future__ import annotations

import ctypes
import os

from jaula.kernel.libc import function

_IN_MODIFY = 0x2  # linux/inotify.h

_inotify_init1 = function("inotify_init1", ctypes.c_int)
_inotify_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def subscribe(directory: int) -> int | None:
    """A non-blocking inotify descriptor, or None where the memory controller is not on."""
    if not os.access("memory.events", os.F_OK, dir_fd=directory):
        return None
    watch = _inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        path = f"/proc/self/fd/{directory}/memory.events"
        _inotify_add_watch(watch, path.encode(), _IN_MODIFY)
    except BaseException:
        os.close(watch)
        raise
    return watch
