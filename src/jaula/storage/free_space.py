"""The space that is left free on a file system, so that an archive or a download cannot fill it."""

from __future__ import annotations

import errno
import os

RESERVE = 64 << 20  # bytes that nothing of a client takes


def check(descriptor: int, size: int) -> int:
    """Return the free bytes beyond the reserve on a descriptor's file system.

    :raises OSError: ``ENOSPC``, less than ``size`` bytes are free.
    """
    facts = os.fstatvfs(descriptor)
    free = facts.f_bavail * facts.f_frsize - RESERVE
    if free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return free
