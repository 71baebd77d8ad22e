"""Docker's summaries of containers (``GET /containers/json``)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jaula.engine.containers.inspect import mounts
from jaula.engine.networks import network_settings
from jaula.errors import NotFound
from jaula.spec.units import human_duration
from jaula.state.records import ContainerRecord, HealthRecord, HealthStatus, Status

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services


def summary(parts: Services, container: Container) -> dict[str, Any]:
    """One container, without sizes."""
    record = container.record
    mode = record.body.host_config.network_mode
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": _image_name(parts, record),
        "ImageID": record.image,
        "Command": command(record.args),
        "Created": record.created // 1_000_000_000,
        "Ports": network_settings.listed_ports(record),
        "Labels": dict(record.body.labels),
        "State": str(record.status),
        "Status": status(record, time.time()),
        "HostConfig": {"NetworkMode": "bridge" if mode in ("", "default") else mode},
        "NetworkSettings": {"Networks": network_settings.networks(record, parts.networks.id_of)},
        "Mounts": mounts(record),
    }


def _image_name(parts: Services, record: ContainerRecord) -> str:
    """The name it was made with, or the id when that name means another image by now."""
    try:
        if parts.images.resolve(record.body.image).id == record.image:
            return record.body.image
    except NotFound:
        pass  # removed, or its name was moved: the id says what it was
    return record.image


def command(args: tuple[str, ...]) -> str:
    """The program as one line, in the manner of Docker: words with blanks are quoted."""
    return " ".join(f"'{a}'" if not a or any(c.isspace() for c in a) else a for a in args)


def _health(found: HealthRecord) -> str:
    if found.status is HealthStatus.STARTING:
        return "health: starting"
    return str(found.status)


def status(record: ContainerRecord, now: float) -> str:
    """``Up 3 seconds``, ``Exited (0) 2 minutes ago``; ``now`` in seconds since the epoch."""
    match record.status:
        case Status.CREATED:
            return "Created"
        case Status.RUNNING | Status.PAUSED:
            up = f"Up {human_duration(now - record.started_at / 1e9)}"
            if record.status is Status.PAUSED:
                return f"{up} (Paused)"
            return f"{up} ({_health(record.health)})" if record.health is not None else up
        case Status.RESTARTING:
            ago = human_duration(now - record.finished_at / 1e9)
            return f"Restarting ({record.exit_code}) {ago} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.EXITED:
            if not record.finished_at:
                return "Created"
            return (
                f"Exited ({record.exit_code}) {human_duration(now - record.finished_at / 1e9)} ago"
            )


_MADE = frozenset(
    [
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/console",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/sbin/docker-init",
    ]
)
"""Mount points that a start makes where the image lacks them."""


def changes(found: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """The change list without the places that only the engine's own mounts needed.

    ``found`` holds paths with Docker's kinds: 0 modified, 1 added, 2 deleted. Directories that
    changed for nothing else than those places are left out too.
    """
    return [{"Path": path, "Kind": kind} for path, kind in without_mount_points(found)]


def without_mount_points(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """What :func:`changes` keeps of a list."""
    kept = [(path, kind) for path, kind in found if not (kind == 1 and path in _MADE)]
    for parent in ("/etc", "/sbin", "/dev"):
        if not any(path.startswith(parent + "/") for path, _ in kept) and any(
            path.startswith(parent + "/") for path, _ in found
        ):
            kept = [(path, kind) for path, kind in kept if path != parent]
    return kept
