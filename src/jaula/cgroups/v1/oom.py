"""Word of memory running out on v1: an eventfd registered with ``cgroup.event_control``.

Source: kernel ``admin-guide/cgroup-v1/memory.rst``, "OOM Control" and "Memory thresholds". The
kernel signals it at every out-of-memory and once more when the cgroup is removed.
"""

from __future__ import annotations

import errno
import os

from jaula.cgroups import files


def subscribe(directory: int) -> int | None:
    """A non-blocking eventfd, or None where the kernel has no such events (PREEMPT_RT)."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open("memory.oom_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            files.write(directory, "cgroup.event_control", f"{event} {control}")
        finally:
            os.close(control)
    except OSError as error:
        os.close(event)
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            return None
        raise
    except BaseException:
        os.close(event)
        raise
    return event
