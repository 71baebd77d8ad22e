"""Free a range of a file: fallocate(2) with ``FALLOC_FL_PUNCH_HOLE``.

Source: ``linux/falloc.h``. The library is loaded as a ``CDLL``, which releases the interpreter
lock: a file system may wait for the disk.
"""

from __future__ import annotations

import ctypes
import os

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02

_fallocate = ctypes.CDLL(None, use_errno=True)["fallocate64"]
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Free the blocks of a range, which is read as zeros afterwards. The file keeps its size.

    :raises OSError: EPERM for an immutable file; EOPNOTSUPP without support of the file system.
    """
    if _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
