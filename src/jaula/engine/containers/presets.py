"""Presets of confinement (default, strict, docker, honeypot), and profile documents.

A preset fills in what a request leaves open; explicit options stay. The completed request is
authorized, recorded and shown, so ``inspect`` and ``verify`` need not know presets. Completing a
request twice changes nothing. A document (:mod:`jaula.engine.containers.profile_request`) is the
text itself, or the name of one that is part of the package. The completed request has the text, as
Docker's has the text of a seccomp profile, so a client can create a container from ``inspect``.

Facts about requests: Docker's clients send every member, so ``false``, ``0`` and ``""`` do not tell
whether the user set them. ``ProfileKeeps`` lists members that the user set to such a value; our own
client fills it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from jaula import feature
from jaula.config import OWN_RUNTIME
from jaula.engine.containers import profile_request
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig
from jaula.spec.api_networks import NetworkingConfig
from jaula.spec.confinement_profile import Profile, is_document, is_known, load_text, packaged

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT, STRICT, DOCKER = "default", "strict", "docker"
NAMES = (
    *(DEFAULT, STRICT, DOCKER),
    *(name for each in feature.features() for name in each.presets),
)
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
            f"profile {host.profile[:64]} and annotation {ANNOTATION}={annotated[:64]} contradict"
        )
    name = host.profile or annotated or default
    if name not in NAMES:
        return _with_document(body, name, annotations, landlock)
    changes: dict[str, Any] = {"profile": name, "annotations": annotations}
    networking = body.networking_config
    if name == STRICT:
        changes |= dict(_strict(body, landlock))
        if "network_mode" in changes:
            networking = NetworkingConfig()
    elif name == DOCKER:
        changes |= dict(_docker(host))
    elif name != DEFAULT:
        changes |= dict(_of_feature(name)(body))
        if "network_mode" in changes:
            networking = NetworkingConfig()
    return msgspec.structs.replace(
        body,
        host_config=msgspec.structs.replace(host, **changes),
        networking_config=networking,
    )


def _of_feature(name: str) -> Callable[[ContainerCreate], Iterator[tuple[str, Any]]]:
    """Return the function of a feature that yields the members of ``HostConfig`` of its preset."""
    return next(
        each.function(each.presets[name]) for each in feature.features() if name in each.presets
    )


async def read_document(host: HostConfig) -> None:
    """Parse the document of a request, so that :func:`apply` and :func:`document` find it parsed.

    A sandboxed process parses it, once for the last documents of an engine.

    :raises InvalidRequest: when it is not valid.
    """
    text = host.profile or host.annotations.get(ANNOTATION, "")
    if not is_document(text) or is_known(text):
        return
    from jaula.engine.containers import profile_document  # few engines start sandboxed processes

    await profile_document.read(text)


def _with_document(
    body: ContainerCreate, text: str, annotations: dict[str, str], landlock: int
) -> ContainerCreate:
    """Return the request that a document completes; ``text`` is the document or its name."""
    if not is_document(text):
        text = packaged(text, NAMES)
    host = msgspec.structs.replace(body.host_config, profile=text, annotations=annotations)
    body = msgspec.structs.replace(body, host_config=host)
    changes = profile_request.complete(body, load_text(text), landlock)
    if "network_mode" in changes:
        body = msgspec.structs.replace(body, networking_config=NetworkingConfig())
    return profile_request.replace(body, changes)


def document(host: HostConfig) -> Profile | None:
    """Return the document of a completed request, None for a preset.

    None too for a document that a former engine has accepted and this one would not: what it gave
    the container is in the other members of the request.
    """
    if not is_document(host.profile):
        return None
    try:
        return load_text(host.profile)
    except InvalidRequest:
        return None


def _strict(body: ContainerCreate, landlock: int) -> Iterator[tuple[str, Any]]:
    host, keeps = body.host_config, body.host_config.profile_keeps
    if "ALL" not in (name.upper() for name in host.cap_drop):
        yield "cap_drop", ("ALL", *host.cap_drop)
    options = host.security_opt
    if not profile_request.has_option(host, "no-new-privileges"):
        options = (*options, "no-new-privileges")
    if profile_request.landlock_applies(host, landlock) and not profile_request.has_option(
        host, "landlock"
    ):
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
    if not profile_request.has_option(host, "landlock") and host.runtime in ("", OWN_RUNTIME):
        yield "security_opt", (*host.security_opt, "landlock=off")
    if not host.privileged and not profile_request.has_option(host, "systempaths"):
        if host.masked_paths is None:
            yield "masked_paths", DOCKER_MASKED
        if host.readonly_paths is None:
            yield "readonly_paths", DOCKER_READONLY


def deviations(host: HostConfig) -> tuple[str, ...]:
    """Return what a container lacks of its document or of ``strict``: the request was explicit."""
    if (own := document(host)) is not None:
        return profile_request.deviations(host, own)
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


def warnings(host: HostConfig) -> Iterator[str]:
    """Yield the warnings of a completed request with a document."""
    own = document(host)
    if own is None:
        return
    if weaker := profile_request.deviations(host, own):
        yield f"Explicit options weaken the profile {own.name}: {', '.join(weaker)}"
    if own.guessed:
        yield f"The profile {own.name} was guessed from an image; no record confirms it"
