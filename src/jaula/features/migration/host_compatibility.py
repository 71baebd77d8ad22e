"""The facts of this host that decide whether processes of another host can go on here."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from jaula.errors import JaulaError
from jaula.kernel.cpuinfo import cpu_features
from jaula.spec.migration import HostDescription

if TYPE_CHECKING:
    from jaula.engine.oci_spec.inputs import HostFacts


def describe(host: HostFacts) -> HostDescription:
    """Return the description of this host. Starts CRIU once for its version."""
    system = os.uname()
    return HostDescription(
        kernel=system.release,
        architecture=system.machine,
        page_size=resource.getpagesize(),
        criu=_criu_version(),
        cpu_features=cpu_features(),
        landlock=host.landlock,
        cgroup_version=host.cgroup_version,
        apparmor=host.apparmor,
    )


def boot_id() -> str:
    """Return the id of this boot of the host (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def available_memory() -> int:
    """Return the bytes that new processes can have (proc_meminfo(5), MemAvailable)."""
    return _memory("MemAvailable")


def total_memory() -> int:
    """Return the bytes of memory of this host (proc_meminfo(5), MemTotal)."""
    return _memory("MemTotal")


def _memory(field: str) -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) << 10
    return 0


def _criu_version() -> str:
    from jaula.features.checkpoint.checkpoints import criu_version

    try:
        return criu_version()
    except JaulaError:
        return ""
