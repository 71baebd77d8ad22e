"""Presets of confinement: ``--profile default``, ``strict`` and ``docker``. Pure.

A preset fills in what a request leaves open; explicit options stay. The completed request is
authorized, recorded and shown, so ``inspect`` and ``verify`` need not know presets. Completing a
request twice changes nothing.

Facts about requests: Docker's clients send every member, so ``false``, ``0`` and ``""`` do not tell
whether the user set them. ``ProfileKeeps`` lists members that the user set to such a value; our own
client fills it.
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
"""The preset, for clients that can send an annotation but no member of their own."""

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
_UNBOUNDED_LOG = "-1"  # Docker's max-size for no limit


def check_name(name: str) -> str:
    """Return the name of a preset.

    :raises InvalidRequest: when it is unknown.
    """
    if name not in NAMES:
        raise InvalidRequest(
            f"unknown profile {name[:64]!r}", hint=f"must be one of {', '.join(NAMES)}"
        )
    return name


def apply(body: ContainerCreate, default: str, landlock: int) -> ContainerCreate:
    """Return the completed request; ``landlock`` is the kernel's Landlock ABI, 0 for none.

    :raises InvalidRequest: when a profile is unknown, or two different ones are named.
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
    """Return whether a security option is set, whatever its value."""
    return any(text.replace("=", ":").partition(":")[0] == option for text in host.security_opt)


def _strict(body: ContainerCreate, landlock: int) -> Iterator[tuple[str, Any]]:
    host, keeps = body.host_config, body.host_config.profile_keeps
    if "ALL" not in (name.upper() for name in host.cap_drop):
        yield "cap_drop", ("ALL", *host.cap_drop)
    options = host.security_opt
    if not _has(host, "no-new-privileges"):
        options = (*options, "no-new-privileges")
    own = host.runtime in ("", OWN_RUNTIME)
    applicable = landlock and own and not host.privileged and not host.pid_mode
    if applicable and not _has(host, "landlock"):
        options = (*options, "landlock=exec")
    yield "security_opt", options
    if "ReadonlyRootfs" not in keeps:
        yield "readonly_rootfs", True
        taken = {request.mount.destination for request in mount_spec.mount_requests(body)}
        free = {path: options for path, options in STRICT_TMPFS.items() if path not in taken}
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
    """Return what a container of the profile ``strict`` lacks because the request was explicit."""
    if host.profile != STRICT:
        return ()
    weakened = [f"cap-add={name}" for name in host.cap_add]
    if host.privileged:
        weakened.append("privileged")
    if "no-new-privileges" not in host.security_opt:
        weakened.append("new privileges")
    if "landlock=exec" not in host.security_opt:
        weakened.append("no Landlock for exec")
    if not host.readonly_rootfs:
        weakened.append("writable root")
    if host.network_mode != "none":
        weakened.append(f"network={host.network_mode or 'default'}")
    if host.pids_limit is None or not 0 < host.pids_limit <= STRICT_PIDS:
        weakened.append(f"pids-limit={host.pids_limit}")
    if not 0 < host.memory <= STRICT_MEMORY:
        weakened.append(f"memory={host.memory}")
    elif host.memory_swap != host.memory:
        weakened.append(f"memory-swap={host.memory_swap}")
    return tuple(weakened)
