"""Which attempts must fail, by what was requested of the container. Pure but for lists of /sys."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from jaula.audit.checks import lsm_labels as label_checks
from jaula.audit.escape import attempts, lsm_labels, network
from jaula.audit.escape.limits import Limits, ceilings
from jaula.audit.escape.neighbour import Neighbour
from jaula.audit.escape.network import NetworkTargets
from jaula.audit.model.container import AuditedContainer
from jaula.engine.containers.create import size_limit
from jaula.security.lsm import detect
from jaula.security.masked_paths import MASKED_PATHS, READONLY_PATHS
from jaula.spec import cpuset
from jaula.spec.runtime import Mount

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class HostFile(msgspec.Struct, frozen=True):
    """Things of the host that no container may reach."""

    file: str
    abstract: bytes
    port: int
    memory: int


def chosen(
    subject: AuditedContainer,
    bait: HostFile,
    neighbour: Neighbour,
    networks: Iterable[Mapping[str, Any]],
) -> list[attempts.Attempt]:
    """The attempts that the container's request says must fail."""
    flag = relaxing(subject)
    privileged = "--privileged" if subject.privileged else None
    shares = {
        key: f"{name}=host" if subject.text(key) == "host" else None
        for key, name in (("PidMode", "--pid"), ("IpcMode", "--ipc"))
    }
    masked = subject.host_config.get("MaskedPaths")
    readonly = subject.host_config.get("ReadonlyPaths")
    lifted = "systempaths=unconfined" if readonly == [] else None
    asked = "--device" if subject.host_config.get("Devices") else None
    around = surroundings(subject, networks)
    return [
        *attempts.calls(flag),
        *attempts.families(flag),
        *attempts.terminals(flag),
        *attempts.capabilities(privileged),
        *attempts.masked(MASKED_PATHS if masked is None else masked),
        *attempts.writes(READONLY_PATHS if readonly is None else readonly, privileged or lifted),
        *attempts.devices(privileged or asked),
        *network.network(bait.abstract, bait.port, around),
        network.neighbour(neighbour.address, in_host_network(subject)),
        *attempts.others(bait.file, os.getpid(), bait.memory, pids=shares["PidMode"],
                         ipc=shares["IpcMode"]),
        *lsm_labels.owners(neighbour.directory, same_ids(subject)),
        *mandatory(subject, neighbour),
        *ceilings(
            limits(subject),
            oom="--oom-kill-disable" if subject.host_config.get("OomKillDisable") else None,
            cgroup=privileged,
            raising=raising(subject),
        ),
    ]  # fmt: skip


def relaxing(subject: AuditedContainer) -> str | None:
    """The flags for which more system calls work than by default."""
    flags = ["--privileged"] if subject.privileged else []
    flags += [f"seccomp={value}" for value in subject.security_option("seccomp") if value]
    if added := subject.names("CapAdd"):
        flags.append("--cap-add " + ",".join(added))
    return ", ".join(flags) or None


def in_host_network(subject: AuditedContainer) -> str | None:
    """The flag for which the container has the host's network."""
    return "--network=host" if subject.text("NetworkMode") == "host" else None


def surroundings(
    subject: AuditedContainer, networks: Iterable[Mapping[str, Any]]
) -> NetworkTargets:
    """What the network gives that the twin is on."""
    mode = subject.text("NetworkMode")
    own = next((each for each in networks if mode in (each.get("Name"), each.get("Id"))), {})
    other = f"--network={mode}" if mode.startswith("container:") else None
    ipv6 = f"--network={mode}, which has IPv6" if own.get("EnableIPv6") else None
    if any("ipv6" in name for name in subject.host_config.get("Sysctls") or ()):
        ipv6 = "--sysctl"
    return NetworkTargets(
        alone=mode == "none" or bool(own.get("Internal")),
        host=in_host_network(subject) or other,
        ipv6=ipv6,
    )


def same_ids(subject: AuditedContainer) -> str | None:
    """Why the ids of the container are another one's too."""
    if subject.rootless is not None:
        return subject.rootless
    return None if subject.own_user_namespace else f"--userns={subject.text('UsernsMode')}"


def mandatory(subject: AuditedContainer, neighbour: Neighbour) -> list[attempts.Attempt]:
    """What labels stop, where a security module labels."""
    found = []
    if detect.selinux() and neighbour.label:
        found += lsm_labels.selinux(neighbour.label, label_checks.lifted(subject))
    if detect.apparmor():
        found += lsm_labels.apparmor(label_checks.unconfined(subject))
    return found


def raising(subject: AuditedContainer) -> str | None:
    """Why the container may raise its resource limits: the host's CAP_SYS_RESOURCE."""
    if subject.own_user_namespace or "CAP_SYS_RESOURCE" not in subject.capabilities.bounding:
        return None
    return "the host's CAP_SYS_RESOURCE"


def limits(subject: AuditedContainer) -> Limits:
    """The numbers that were asked for; those that an update changes from the inspect document."""
    resources = subject.linux.resources
    given = resources.pids.limit if resources and resources.pids else 0
    pids = int(subject.host_config.get("PidsLimit") or given or 0)
    memory = max(subject.number("Memory"), subject.number("MemorySwap"))
    quota, period = subject.number("CpuQuota"), subject.number("CpuPeriod") or 100_000
    if (nano := subject.number("NanoCpus")) > 0:
        quota, period = nano * 100_000 // 1_000_000_000, 100_000
    online = processors()
    allowed = cpuset.parse(subject.text("CpusetCpus"), empty_elements=True) or online
    shared = subject.text("IpcMode").partition(":")[0] in ("host", "container")
    return Limits(
        pids=pids if pids > 0 else None,
        memory=memory if memory > 0 else None,
        cpu=(quota, period) if quota > 0 else None,
        outside=online - allowed,
        processors=len(online & allowed),
        spaces=spaces(subject, shared=shared),
        rlimits={limit.type: limit.hard for limit in subject.process.rlimits},
    )


def spaces(subject: AuditedContainer, *, shared: bool) -> dict[str, int]:
    """What the file systems may hold that have a limit; /dev/shm may be ``shared`` with others."""
    found = {
        mount.destination: size
        for mount in subject.spec.mounts
        if (size := tmpfs_size(mount)) and not (shared and mount.destination == "/dev/shm")
    }
    if (quota := size_limit(subject.host_config.get("StorageOpt") or {})) is not None:
        found["/"] = quota
    return found


def processors() -> frozenset[int]:
    """Those that this kernel has running."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        return cpuset.parse(file.read(), empty_elements=True)


def tmpfs_size(mount: Mount) -> int:
    """How many bytes a tmpfs may hold (tmpfs(5)); 0 where no number is said or it is no tmpfs."""
    if mount.type != "tmpfs":
        return 0
    size = 0
    for option in mount.options:
        name, _, value = option.partition("=")
        digits, unit = value.rstrip("kKmMgG"), value[-1:].lower()
        if name == "size" and digits.isascii() and digits.isdigit():
            size = int(digits) * UNITS.get(unit, 1)
    return size
