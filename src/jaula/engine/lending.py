"""Namespaces that one container lends to another: held by descriptor, not by a path.

Facts about /proc/PID: the number may be another process's a moment later. A descriptor of the
directory belongs to the process that had the number when it was opened; looking things up through
it fails once that process is gone, whoever has the number then. So the directory is opened once,
the namespaces through it, and that it is the container's first process is checked so too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaula.engine.container import Container

NAMES = {"user": "user", "pid": "pid", "ipc": "ipc", "network": "net"}
"""OCI type: file below /proc/PID/ns."""


def borrow(lender: Container, kinds: Iterable[str]) -> dict[str, int]:
    """Descriptors of a running container's namespaces, by OCI type; the caller closes them.

    :raises Conflict: it has no first process any more.
    """
    record = lender.record
    found: dict[str, int] = {}
    gone = Conflict(f"cannot join the namespaces of container {lender.name}: it does not run")
    if not lender.live or not record.pid:
        raise gone
    try:
        process = os.open(f"/proc/{record.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise gone from None
    try:
        for kind in kinds:
            path = f"ns/{NAMES[kind]}"
            found[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        if _parent(process) != record.shim_pid:
            raise gone
    except BaseException as error:
        for fd in found.values():
            os.close(fd)
        if isinstance(error, FileNotFoundError | ProcessLookupError):
            raise gone from None
        raise
    finally:
        os.close(process)
    return found


def _parent(process: int) -> int:
    """The parent's number of the process of a /proc directory (proc_pid_stat(5))."""
    fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        text = os.read(fd, 1024)
    finally:
        os.close(fd)
    return int(text[text.rindex(b")") :].split()[2])
