"""The checks of ``jaula verify``: one file and one line in :data:`TABLE` each.

A check takes the :class:`~jaula.audit.subject.Subject` and gives its rows. It reads the kernel,
never the engine, and lets ``OSError``, ``ValueError`` and ``KeyError`` pass where the kernel does
not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from jaula.audit.about import About
from jaula.audit.checks import (
    capabilities,
    cgroups,
    descriptors,
    devices,
    firewall,
    image,
    labels,
    landlock,
    masks,
    mounts,
    namespaces,
    network,
    privileges,
    processes,
    profile,
    rlimits,
    rootfs,
    seccomp,
    sources,
    sysctls,
    users,
)
from jaula.audit.row import Row
from jaula.audit.subject import Subject


class Check(NamedTuple):
    """What a check is for, and the function that gives its rows."""

    about: About
    rows: Callable[[Subject], Iterable[Row]]


TABLE: tuple[Check, ...] = (
    Check(namespaces.ABOUT, namespaces.check),
    Check(users.ABOUT, users.check),
    Check(cgroups.ABOUT, cgroups.check),
    Check(capabilities.ABOUT, capabilities.check),
    Check(processes.ABOUT, processes.check),
    Check(seccomp.ABOUT, seccomp.check),
    Check(privileges.ABOUT, privileges.check),
    Check(labels.ABOUT, labels.check),
    Check(landlock.ABOUT, landlock.check),
    Check(masks.ABOUT, masks.check),
    Check(rootfs.ABOUT, rootfs.check),
    Check(mounts.ABOUT, mounts.check),
    Check(sources.ABOUT, sources.check),
    Check(devices.ABOUT, devices.check),
    Check(network.ABOUT, network.check),
    Check(firewall.ABOUT, firewall.check),
    Check(sysctls.ABOUT, sysctls.check),
    Check(rlimits.ABOUT, rlimits.check),
    Check(descriptors.ABOUT, descriptors.check),
    Check(profile.ABOUT, profile.check),
    Check(image.ABOUT, image.check),
)
"""In the order of the report."""
