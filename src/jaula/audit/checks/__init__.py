"""The checks of ``jaula verify``: one file and one line in :data:`TABLE` each.

A check takes the :class:`~jaula.audit.model.container.AuditedContainer` and gives its rows. It reads the kernel,
never the engine, and lets ``OSError``, ``ValueError`` and ``KeyError`` pass where the kernel does
not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from jaula.audit.checks import (
    bind_sources,
    capabilities,
    cgroups,
    devices,
    firewall,
    id_maps,
    image_policy,
    landlock,
    lsm_labels,
    masked_paths,
    mounts,
    namespaces,
    network,
    no_new_privs,
    open_files,
    processes,
    profile,
    rlimits,
    rootfs,
    seccomp,
    sysctls,
)
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result


class Check(NamedTuple):
    """What a check is for, and the function that gives its rows."""

    about: CheckInfo
    rows: Callable[[AuditedContainer], Iterable[Result]]


TABLE: tuple[Check, ...] = (
    Check(namespaces.ABOUT, namespaces.check),
    Check(id_maps.ABOUT, id_maps.check),
    Check(cgroups.ABOUT, cgroups.check),
    Check(capabilities.ABOUT, capabilities.check),
    Check(processes.ABOUT, processes.check),
    Check(seccomp.ABOUT, seccomp.check),
    Check(no_new_privs.ABOUT, no_new_privs.check),
    Check(lsm_labels.ABOUT, lsm_labels.check),
    Check(landlock.ABOUT, landlock.check),
    Check(masked_paths.ABOUT, masked_paths.check),
    Check(rootfs.ABOUT, rootfs.check),
    Check(mounts.ABOUT, mounts.check),
    Check(bind_sources.ABOUT, bind_sources.check),
    Check(devices.ABOUT, devices.check),
    Check(network.ABOUT, network.check),
    Check(firewall.ABOUT, firewall.check),
    Check(sysctls.ABOUT, sysctls.check),
    Check(rlimits.ABOUT, rlimits.check),
    Check(open_files.ABOUT, open_files.check),
    Check(profile.ABOUT, profile.check),
    Check(image_policy.ABOUT, image_policy.check),
)
"""In the order of the report."""
