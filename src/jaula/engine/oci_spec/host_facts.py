"""Read the facts of this host on which limits and documents depend."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Collection

import msgspec

from jaula.engine.oci_spec.inputs import HostFacts
from jaula.kernel import capabilities, namespaces
from jaula.security.lsm import apparmor_profile, detect, selinux_policy
from jaula.spec import cpuset

_SYS_RESOURCE = 24  # CAP_SYS_RESOURCE, linux/capability.h


def read(
    nofile: tuple[int, int],
    pids_limit: int,
    features: Collection[str],
    *,
    cgroup_version: int = 2,
    controllers: frozenset[str] = frozenset(),
    container_type: str = "",
    file_type: str = "",
    rootless: bool = False,
    warnings: tuple[str, ...] = (),
) -> HostFacts:
    """Return the facts of this host.

    ``features``, ``cgroup_version`` and ``controllers`` are those of the cgroup driver. The types
    are SELinux's, if not the usual ones. ``warnings`` are added to those found here. A rootless
    engine without cgroups has no default limit of processes, since nothing could enforce it.
    """
    policy = selinux_policy.read(process=container_type, file=file_type)
    nodes = _set("/sys/devices/system/node/online")
    bounding = capabilities.read_status_masks(os.getpid())["bounding"]
    return HostFacts(
        online_cpus=_set("/sys/devices/system/cpu/online") or frozenset({0}),
        memory_nodes=nodes or frozenset({0}),
        total_memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        swap_accounting="swap" in features,
        io_weights="io.weight" in features,
        cgroup_version=cgroup_version,
        controllers=controllers,
        selinux=policy.active,
        selinux_types=policy.types,
        selinux_spc=policy.spc,
        apparmor=detect.apparmor() and not rootless,  # only root's engine can load its profile
        apparmor_profiles=detect.apparmor_profiles(),
        apparmor_default=apparmor_profile.loaded_name(detect.apparmor_current()),
        landlock=detect.landlock(),
        hostname=socket.gethostname(),
        kernel=os.uname().release,
        capabilities=bounding,
        mqueue=os.path.ismount("/dev/mqueue"),
        private_mounts=not rootless,  # only root can enter the host's
        time_namespaces=os.path.exists("/proc/self/ns/time"),
        nofile=_grantable(nofile),
        pids_limit=pids_limit if not rootless or "pids" in features else 0,
        rootless=rootless,
        warnings=(*warnings, *policy.missing),
    )


def with_limits(facts: HostFacts, nofile: tuple[int, int], pids_limit: int) -> HostFacts:
    """Return the facts with other default limits; one that nothing can enforce stays absent."""
    return msgspec.structs.replace(
        facts,
        nofile=_grantable(nofile),
        pids_limit=pids_limit if facts.pids_limit or not facts.rootless else 0,
    )


def refresh(facts: HostFacts) -> HostFacts:
    """Return the facts with the present AppArmor profiles, which change while an engine runs."""
    if not facts.apparmor:
        return facts
    return msgspec.structs.replace(facts, apparmor_profiles=detect.apparmor_profiles())


def _grantable(limits: tuple[int, int]) -> tuple[int, int]:
    """Return the default number of open files, or less if the engine may not raise its own limit.

    Raising it needs CAP_SYS_RESOURCE in the initial user namespace (setrlimit(2)).
    """
    effective = capabilities.read_status_masks(os.getpid())["effective"]
    if effective >> _SYS_RESOURCE & 1 and namespaces.is_initial_userns():
        return limits
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return limits
    return min(limits[0], hard), min(limits[1], hard)


def _set(path: str) -> frozenset[int]:
    try:
        with open(path, encoding="ascii") as file:
            return cpuset.parse(file.read(), field=path, empty_elements=True)
    except FileNotFoundError:
        return frozenset()


def unprivileged_port_start() -> int:
    """Return the first port of the host's network that a program without privileges may bind."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        return int(file.read())


def operating_system() -> str:
    """Return the name of the distribution (os-release(5))."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith("PRETTY_NAME="):
                        return line.partition("=")[2].strip().strip("\"'")
        except FileNotFoundError:
            continue
    return "Linux"
