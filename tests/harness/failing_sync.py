"""An engine whose database cannot be written to the disk for a while.

    python failing_sync.py FAULT daemon [FLAG...]

FAULT is a file. While it has the number of an error, fsync(2) of the database's log fails with it.
While it has ``hang``, the call waits.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

FAULT = Path(sys.argv[1]) if __name__ == "__main__" else Path()


def failing(fsync: Callable[[int], None]) -> Callable[[int], None]:
    @functools.wraps(fsync)
    def call(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/jaula.db-wal"):
            while (word := fault()) == "hang":
                time.sleep(0.02)
            if word:
                raise OSError(int(word), os.strerror(int(word)))
        fsync(fd)

    return call


def fault() -> str:
    try:
        return FAULT.read_text()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    del sys.path[0], sys.argv[1]
    os.fsync = failing(os.fsync)
    from jaula.cli.main import run_and_exit

    run_and_exit()
