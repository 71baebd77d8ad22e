"""Selection of the attempts that must fail, by the request. Pure except for files of /sys."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

import msgspec

from jaula.engine.containers.storage_opt import size_limit
from jaula.features.verify.checks import lsm_labels as label_checks
from jaula.features.verify.escape import attempts, lsm_labels, network
from jaula.features.verify.escape.limits import Limits, limit_attempts
from jaula.features.verify.escape.neighbour import Neighbour
from jaula.features.verify.escape.network import NetworkTargets
from jaula.features.verify.model.container import AuditedContainer
from jaula.security.lsm import detect
from jaula.security.masked_paths import MASKED_PATHS, READONLY_PATHS
from jaula.spec import cpuset, egress
from jaula.spec.runtime_spec import Mount

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class HostBait(msgspec.Struct, frozen=True):
    """Objects of the host that no container may reach."""

    file: str
    abstract: bytes
    port: int
    memory: int


def select_attempts(
    container: AuditedContainer,
    bait: HostBait,
    neighbour: Neighbour,
    networks: Iterable[Mapping[str, Any]],
) -> list[attempts.Attempt]:
    """Return the attempts that must fail for the container's request."""
    relaxed_by = relaxed_seccomp(container)
    privileged = "--privileged" if container.privileged else None
    has_all = {"ALL", "CAP_ALL"} & {name.upper() for name in container.names("CapAdd")}
    all_by = "--cap-add all" if has_all and not container.names("CapDrop") else None
    shared_by = {
        key: f"{name}=host" if container.text(key) == "host" else None
        for key, name in (("PidMode", "--pid"), ("IpcMode", "--ipc"))
    }
    masked = container.host_config.get("MaskedPaths")
    readonly = container.host_config.get("ReadonlyPaths")
    unconfined_by = "systempaths=unconfined" if readonly == [] else None
    devices_by = "--device" if container.host_config.get("Devices") else None
    targets = network_targets(container, networks)
    selected = [
        *attempts.calls(relaxed_by),
        *attempts.families(relaxed_by),
        *attempts.terminals(relaxed_by),
        *attempts.capabilities(privileged or all_by),
        *attempts.masked_reads(MASKED_PATHS if masked is None else masked),
        *attempts.writes(READONLY_PATHS if readonly is None else readonly,
                         privileged or unconfined_by),
        *attempts.devices(privileged or devices_by),
        *network.network(bait.abstract, bait.port, targets),
        network.neighbour(neighbour.address, in_host_network(container)),
        *attempts.host_objects(bait.file, os.getpid(), bait.memory, pids=shared_by["PidMode"],
                         ipc=shared_by["IpcMode"]),
        *lsm_labels.foreign_files(neighbour.directory, shared_ids(container)),
        *label_attempts(container, neighbour),
        *limit_attempts(
            requested_limits(container),
            oom="--oom-kill-disable" if container.host_config.get("OomKillDisable") else None,
            cgroup=privileged,
            raising=may_raise_rlimits(container),
        ),
    ]  # fmt: skip
    further = set()
    if container.security_option("seccomp-allow"):
        further |= {errno.EPERM, errno.ENOSYS}
    if refused_by_list(container, neighbour.address):
        further.add(errno.ECONNREFUSED)
    return [
        msgspec.structs.replace(attempt, refusals=attempt.refusals | further)
        for attempt in selected
    ]


def refused_by_list(container: AuditedContainer, address: str) -> bool:
    """Return whether the container has an egress list without this address."""
    items = container.host_config.get("Egress")
    return items is not None and not any(
        destination.network is not None and ip_address(address) in destination.network
        for destination in egress.parse(items)
    )


def relaxed_seccomp(container: AuditedContainer) -> str | None:
    """Return the flags that allow more system calls than the default, or None."""
    flags = ["--privileged"] if container.privileged else []
    flags += [f"seccomp={value}" for value in container.security_option("seccomp") if value]
    if added := container.names("CapAdd"):
        flags.append("--cap-add " + ",".join(added))
    return ", ".join(flags) or None


def in_host_network(container: AuditedContainer) -> str | None:
    """Return the flag that gives the container the host's network, or None."""
    return "--network=host" if container.text("NetworkMode") == "host" else None


def network_targets(
    container: AuditedContainer, networks: Iterable[Mapping[str, Any]]
) -> NetworkTargets:
    """Return the targets on the twin's network."""
    mode = container.text("NetworkMode")
    document = next(
        (entry for entry in networks if mode in (entry.get("Name"), entry.get("Id"))), {}
    )
    joined = f"--network={mode}" if mode.startswith("container:") else None
    ipv6 = f"--network={mode}, which has IPv6" if document.get("EnableIPv6") else None
    if any("ipv6" in name for name in container.host_config.get("Sysctls") or ()):
        ipv6 = "--sysctl"
    return NetworkTargets(
        alone=mode == "none" or bool(document.get("Internal")),
        host=in_host_network(container) or joined,
        ipv6=ipv6,
    )


def shared_ids(container: AuditedContainer) -> str | None:
    """Return why the container shares its ids with others, or None."""
    if container.rootless is not None:
        return container.rootless
    return None if container.own_user_namespace else f"--userns={container.text('UsernsMode')}"


def label_attempts(container: AuditedContainer, neighbour: Neighbour) -> list[attempts.Attempt]:
    """Return the attempts that labels stop, if a module labels."""
    selected = []
    if detect.selinux() and neighbour.label:
        selected += lsm_labels.selinux(neighbour.label, label_checks.selinux_disabled_by(container))
    if detect.apparmor():
        selected += lsm_labels.apparmor(label_checks.apparmor_disabled_by(container))
    return selected


def may_raise_rlimits(container: AuditedContainer) -> str | None:
    """Return why the container may raise its resource limits, or None."""
    if container.own_user_namespace or "CAP_SYS_RESOURCE" not in container.capabilities.bounding:
        return None
    return "the host's CAP_SYS_RESOURCE"


def requested_limits(container: AuditedContainer) -> Limits:
    """Return the requested limits; those that an update changes from the inspect document."""
    resources = container.linux.resources
    spec_limit = resources.pids.limit if resources and resources.pids else 0
    pids = int(container.host_config.get("PidsLimit") or spec_limit or 0)
    memory = max(container.number("Memory"), container.number("MemorySwap"))
    quota, period = container.number("CpuQuota"), container.number("CpuPeriod") or 100_000
    if (nano := container.number("NanoCpus")) > 0:
        quota, period = nano * 100_000 // 1_000_000_000, 100_000
    online = online_cpus()
    allowed = cpuset.parse(container.text("CpusetCpus"), empty_elements=True) or online
    shared = container.text("IpcMode").partition(":")[0] in ("host", "container")
    return Limits(
        pids=pids if pids > 0 else None,
        memory=memory if memory > 0 else None,
        cpu=(quota, period) if quota > 0 else None,
        outside=online - allowed,
        processors=len(online & allowed),
        spaces=filesystem_sizes(container, shared=shared),
        rlimits={limit.type: limit.hard for limit in container.process.rlimits},
    )


def filesystem_sizes(container: AuditedContainer, *, shared: bool) -> dict[str, int]:
    """Return the size of each file system with a limit; /dev/shm is left out if ``shared``."""
    sizes = {
        mount.destination: size
        for mount in container.spec.mounts
        if (size := tmpfs_size(mount)) and not (shared and mount.destination == "/dev/shm")
    }
    if (quota := size_limit(container.host_config.get("StorageOpt") or {})) is not None:
        sizes["/"] = quota
    return sizes


def online_cpus() -> frozenset[int]:
    """Return the online CPUs."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        return cpuset.parse(file.read(), empty_elements=True)


def tmpfs_size(mount: Mount) -> int:
    """Return the size of a tmpfs in bytes (tmpfs(5)); 0 if not set or not a tmpfs."""
    if mount.type != "tmpfs":
        return 0
    size = 0
    for option in mount.options:
        name, _, value = option.partition("=")
        digits, unit = value.rstrip("kKmMgG"), value[-1:].lower()
        if name == "size" and digits.isascii() and digits.isdigit():
            size = int(digits) * UNITS.get(unit, 1)
    return size
