"""Move the calling process into a cgroup, by descriptors that a privileged parent opened.

The kernel checks such a write with the credentials that opened the file, so a process that has
dropped its privileges can still do it. Imports only ``os``.

Facts about moving: moving a whole process from outside takes ``cgroup_threadgroup_rwsem`` for
writing. A writer after an idle period waits for an RCU grace period (7-15 ms on Linux 6.18). A
single thread that moves itself by the v1 file ``tasks`` is exempt (``cgroup_procs_write_start`` in
kernel/cgroup/cgroup.c): 0.15 ms for eight hierarchies.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def enter(descriptors: Iterable[int]) -> None:
    """Move the calling thread into the cgroup; the caller must have a single thread.

    :raises OSError: when the kernel refuses a move.
    """
    for descriptor in descriptors:
        os.write(descriptor, b"0")
