"""Run a function in a forked child and return its text.

The kernel shows namespaces, mounts and sysctls of the reader, and what a probe creates must not
outlive it. A child joins or creates namespaces, and they end with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def run_in_child(act: Callable[[], str]) -> str:
    """Return what ``act`` returns in a forked child, or its exception as text; at most 64 KB.

    The caller must have one thread.
    """
    sys.stdout.flush()
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        output = b""
        try:
            output = act().encode("utf-8", "surrogateescape")[: 1 << 16]
        except BaseException as error:  # noqa: BLE001 - passed to the parent, which decides
            output = f"{error}".encode()[:2000] or type(error).__name__.encode()
        while output:
            output = output[os.write(write_fd, output) :]
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as reader:
        output = reader.read()
    _, status = os.waitpid(pid, 0)
    if status:
        return f"the probe ended with wait status {status}"
    return output.decode("utf-8", "replace")
