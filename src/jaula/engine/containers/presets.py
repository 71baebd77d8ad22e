"""Presets of confinement: ``--profile default``, ``strict`` and ``docker``. Pure.

A preset fills in what a request leaves open; whatever was asked for stays. The completed request is
what is judged, recorded and shown, so ``inspect`` and ``verify`` need to know nothing of presets.
Completing a request twice changes nothing.

Facts about requests: Docker's clients send every member, so ``false``, ``0`` and ``""`` do not tell
whether somebody meant them. ``ProfileKeeps`` lists members that were meant although they have such
a value; our own client fills it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest
from jaula.spec.api import ContainerCreate, HostConfig, LogConfig
from jaula.spec.api_networks import NetworkingConfig

DEFAULT, STRICT, DOCKER = "default", "strict", "docker"
NAMES = (DEFAULT, STRICT, DOCKER)
ANNOTATION = "io.jaula.profile"
"""For clients that can give an annotation and no member of their own."""

STRICT_MEMORY = 512 << 20  # bytes, swap included
STRICT_PIDS = 256
STRICT_TMPFS = {
    "/run": "mode=755,size=16m",
    "/tmp": "mode=1777,size=64m",
    "/var/tmp": "mode=1777,size=64m",
}

# Source: moby ``oci/defaults.go`` and ``daemon/pkg/oci``, version 27.
DOCKER_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
DOCKER_READONLY = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
_UNBOUNDED_LOG = "-1"  # Docker's max-size without an end


def check_name(name: str) -> str:
    """The name itself; raises ``InvalidRequest`` for one that does not exist."""
    if name not in NAMES:
        raise InvalidRequest(f"unknown profile {name[:64]!r}", hint=f"one of {', '.join(NAMES)}")
    return name


def apply(body: ContainerCreate, default: str, landlock: int) -> ContainerCreate:
    """The completed request; ``landlock`` is the version that the kernel has, 0 for none.

    Raises ``InvalidRequest`` for an unknown profile, or two different ones.
    """
    host = body.host_config
    annotations = dict(host.annotations)
    annotated = annotations.pop(ANNOTATION, "")
    if annotated and host.profile and annotated != host.profile:
        raise InvalidRequest(
            f"profile {host.profile} and annotation {ANNOTATION}={annotated[:64]} contradict"
        )
    name = check_name(host.profile or annotated or default)
    changes: dict[str, Any] = {"profile": name, "annotations": annotations}
    networking = body.networking_config
    if name == STRICT:
        changes |= dict(_strict(body, landlock))
        if "network_mode" in changes:
            networking = NetworkingConfig()
    elif name == DOCKER:
        changes |= dict(_docker(host))
    return msgspec.structs.replace(
        body,
        host_config=msgspec.structs.replace(host, **changes),
        networking_config=networking,
    )


def _has(host: HostConfig, option: str) -> bool:
    """Whether a security option was given, whatever its value."""
    return any(text.replace("=", ":").partition(":")[0] == option for text in host.security_opt)


def _strict(body: ContainerCreate, landlock: int) -> Iterator[tuple[str, Any]]:
    host, keeps = body.host_config, body.host_config.profile_keeps
    if "ALL" not in (name.upper() for name in host.cap_drop):
        yield "cap_drop", ("ALL", *host.cap_drop)
    options = host.security_opt
    if not _has(host, "no-new-privileges"):
        options = (*options, "no-new-privileges")
    own = host.runtime in ("", OWN_RUNTIME)
    fitting = landlock and own and not host.privileged and not host.pid_mode
    if fitting and not _has(host, "landlock"):
        options = (*options, "landlock=exec")
    yield "security_opt", options
    if "ReadonlyRootfs" not in keeps:
        yield "readonly_rootfs", True
        taken = {request.mount.destination for request in mount_spec.mount_requests(body)}
        free = {place: text for place, text in STRICT_TMPFS.items() if place not in taken}
        yield "tmpfs", {**host.tmpfs, **free}
    published = host.port_bindings or host.publish_all_ports
    if host.network_mode in ("", "default") and not published and "NetworkMode" not in keeps:
        yield "network_mode", "none"
    if host.pids_limit is None:
        yield "pids_limit", STRICT_PIDS
    memory = host.memory
    if not memory and "Memory" not in keeps:
        memory = STRICT_MEMORY
        yield "memory", memory
    if memory > 0 and not host.memory_swap and "MemorySwap" not in keeps:
        yield "memory_swap", memory


def _docker(host: HostConfig) -> Iterator[tuple[str, Any]]:
    joined = (host.network_mode, host.pid_mode, host.ipc_mode)
    if not host.userns_mode and not any(mode.startswith("container:") for mode in joined):
        yield "userns_mode", "host"
    if host.pids_limit is None:
        yield "pids_limit", 0
    if host.log_config.type in ("", "json-file") and "max-size" not in host.log_config.config:
        config = {**host.log_config.config, "max-size": _UNBOUNDED_LOG}
        yield "log_config", LogConfig(type="json-file", config=config)
    if not _has(host, "landlock") and host.runtime in ("", OWN_RUNTIME):
        yield "security_opt", (*host.security_opt, "landlock=off")
    if not host.privileged and not _has(host, "systempaths"):
        if host.masked_paths is None:
            yield "masked_paths", DOCKER_MASKED
        if host.readonly_paths is None:
            yield "readonly_paths", DOCKER_READONLY


def deviations(host: HostConfig) -> tuple[str, ...]:
    """What a container of the profile ``strict`` has less of, as it was asked for explicitly."""
    if host.profile != STRICT:
        return ()
    found = [f"cap-add={name}" for name in host.cap_add]
    if host.privileged:
        found.append("privileged")
    if "no-new-privileges" not in host.security_opt:
        found.append("new privileges")
    if "landlock=exec" not in host.security_opt:
        found.append("no Landlock for exec")
    if not host.readonly_rootfs:
        found.append("writable root")
    if host.network_mode != "none":
        found.append(f"network={host.network_mode or 'default'}")
    if host.pids_limit is None or not 0 < host.pids_limit <= STRICT_PIDS:
        found.append(f"pids-limit={host.pids_limit}")
    if not 0 < host.memory <= STRICT_MEMORY:
        found.append(f"memory={host.memory}")
    elif host.memory_swap != host.memory:
        found.append(f"memory-swap={host.memory_swap}")
    return tuple(found)
