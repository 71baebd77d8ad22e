"""How a process moves itself into a cgroup, by descriptors that a privileged parent opened.

The kernel judges such a write by the credentials that opened the file, so a process that has
already given up its rights may still do it. Imports nothing but ``os``.

Facts about moving: a move of a whole process from outside takes ``cgroup_threadgroup_rwsem`` for
writing, and a writer that comes after a quiet time waits for an RCU grace period (7-15 ms on
Linux 6.18). A single thread that moves *itself* by the v1 file ``tasks`` is exempt
(``cgroup_procs_write_start`` in kernel/cgroup/cgroup.c): 0.15 ms for eight hierarchies.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def enter(descriptors: Iterable[int]) -> None:
    """Move the calling thread in; the caller is a process of one thread. Raises ``OSError``."""
    for descriptor in descriptors:
        os.write(descriptor, b"0")
