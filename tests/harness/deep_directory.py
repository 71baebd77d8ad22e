"""A directory whose path is longer than a page: the kernel does not give its name."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_NAME = "d" * 250
_DEPTH = 17  # names; PATH_MAX is 4096


@contextlib.contextmanager
def opened(parent: Path) -> Iterator[int]:
    """Yield a descriptor of the directory; remove it at the end."""
    fd = os.open(parent, os.O_PATH | os.O_DIRECTORY)
    try:
        for _ in range(_DEPTH):
            os.mkdir(_NAME, dir_fd=fd)
            below = os.open(_NAME, os.O_PATH | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)
        shutil.rmtree(parent / _NAME)  # by descriptors, so the length of the path is no limit
