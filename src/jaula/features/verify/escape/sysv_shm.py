"""A System V shared memory segment of the host, as an escape target: shmget(2), shmctl(2)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from jaula.kernel.libc import function

IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0

_shmget = function("shmget", ctypes.c_int, ctypes.c_size_t, ctypes.c_int)
_shmctl = function("shmctl", ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


@contextmanager
def segment() -> Iterator[int]:
    """Create a page that all processes of this ipc namespace may read; yield its key.

    The segment is removed at the end of the block.
    """
    key = int.from_bytes(os.urandom(4), "big") & 0x7FFFFFFF | 1
    number = _shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0o444)
    try:
        yield key
    finally:
        _shmctl(number, IPC_RMID, None)
