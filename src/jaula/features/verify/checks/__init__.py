"""The checks of ``jaula verify``: each has a file and a line in :data:`TABLE`.

A check takes the :class:`~jaula.features.verify.model.container.AuditedContainer` and yields its
rows. It reads the kernel, never the engine. It raises ``OSError``, ``ValueError`` or ``KeyError``
if the kernel's state cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from jaula import feature
from jaula.features.verify.checks import (
    bind_sources,
    capabilities,
    cgroup_controls,
    cgroups,
    devices,
    egress,
    firewall,
    hostname,
    id_maps,
    image_layers,
    landlock,
    links,
    listen,
    live_changes,
    lsm_labels,
    masked_paths,
    membership,
    mount_identity,
    mounts,
    namespaces,
    network,
    no_new_privs,
    open_files,
    pod_network,
    processes,
    profile,
    rlimits,
    rootfs,
    seal,
    seccomp,
    set_user_id,
    sysctls,
)
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result


class Check(NamedTuple):
    """A check's description, and the function that yields its rows."""

    info: CheckInfo
    rows: Callable[[AuditedContainer], Iterable[Result]]


TABLE: tuple[Check, ...] = (
    Check(namespaces.INFO, namespaces.check),
    Check(hostname.INFO, hostname.check),
    Check(id_maps.INFO, id_maps.check),
    Check(cgroups.INFO, cgroups.check),
    Check(cgroup_controls.INFO, cgroup_controls.check),
    Check(capabilities.INFO, capabilities.check),
    Check(membership.INFO, membership.check),
    Check(processes.INFO, processes.check),
    Check(seccomp.INFO, seccomp.check),
    Check(no_new_privs.INFO, no_new_privs.check),
    Check(set_user_id.INFO, set_user_id.check),
    Check(lsm_labels.INFO, lsm_labels.check),
    Check(landlock.INFO, landlock.check),
    Check(masked_paths.INFO, masked_paths.check),
    Check(rootfs.INFO, rootfs.check),
    Check(mounts.INFO, mounts.check),
    Check(mount_identity.INFO, mount_identity.check),
    Check(bind_sources.INFO, bind_sources.check),
    Check(devices.INFO, devices.check),
    Check(network.INFO, network.check),
    Check(links.INFO, links.check),
    Check(firewall.INFO, firewall.check),
    Check(egress.INFO, egress.check),
    Check(listen.INFO, listen.check),
    Check(pod_network.INFO, pod_network.check),
    *(Check(module.INFO, module.check) for module in feature.modules("checks")),
    Check(sysctls.INFO, sysctls.check),
    Check(rlimits.INFO, rlimits.check),
    Check(open_files.INFO, open_files.check),
    Check(seal.INFO, seal.check),
    Check(live_changes.INFO, live_changes.check),
    Check(profile.INFO, profile.check),
    Check(image_layers.INFO, image_layers.check),
)
"""All checks, in the order of the report."""
