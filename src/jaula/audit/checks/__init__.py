"""The checks of ``jaula verify``: one file and one line in :data:`TABLE` each.

A check takes the :class:`~jaula.audit.subject.Subject` and gives its rows. It reads the kernel,
never the engine, and lets ``OSError``, ``ValueError`` and ``KeyError`` pass where the kernel does
not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jaula.audit.checks import (
    capabilities,
    cgroups,
    descriptors,
    devices,
    labels,
    landlock,
    masks,
    mounts,
    namespaces,
    network,
    privileges,
    rlimits,
    rootfs,
    seccomp,
    users,
)
from jaula.audit.row import Row
from jaula.audit.subject import Subject

Check = Callable[[Subject], Iterable[Row]]

TABLE: tuple[tuple[str, Check], ...] = (
    ("namespaces", namespaces.check),
    ("users", users.check),
    ("cgroups", cgroups.check),
    ("capabilities", capabilities.check),
    ("seccomp", seccomp.check),
    ("no_new_privs", privileges.check),
    ("lsm", labels.check),
    ("landlock", landlock.check),
    ("masks", masks.check),
    ("rootfs", rootfs.check),
    ("mounts", mounts.check),
    ("devices", devices.check),
    ("network", network.check),
    ("rlimits", rlimits.check),
    ("descriptors", descriptors.check),
)
"""(layer, check), in the order of the report."""
