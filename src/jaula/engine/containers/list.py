"""Docker's summaries of containers (``GET /containers/json``) and its list of changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jaula.engine.containers.inspect import mounts
from jaula.engine.networks import network_settings
from jaula.errors import CorruptState, NotFound
from jaula.spec.units import human_duration
from jaula.state.records import ContainerRecord, HealthRecord, HealthStatus, Status
from jaula.storage.diff import without_mount_points

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services


def summary(services: Services, container: Container) -> dict[str, Any]:
    """Return the summary of one container, without sizes."""
    record = container.record
    mode = record.body.host_config.network_mode
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": _image_name(services, record),
        "ImageID": record.image,
        "Command": command(record.args),
        "Created": record.created // 1_000_000_000,
        "Ports": network_settings.listed_ports(record),
        "Labels": dict(record.body.labels),
        "State": str(record.status),
        "Status": status(record, time.time()),
        "HostConfig": {"NetworkMode": "bridge" if mode in ("", "default") else mode},
        "NetworkSettings": {
            "Networks": network_settings.networks(record, services.network_store.id_of)
        },
        "Mounts": mounts(record),
    }


def _image_name(services: Services, record: ContainerRecord) -> str:
    """Return the name from the request, or the id if the name refers to another image now."""
    try:
        if record.image in services.images.ids_with(services.images.resolve(record.body.image).id):
            return record.body.image
    except (CorruptState, NotFound):
        pass  # the image is damaged, removed or renamed: the id identifies it
    return record.image


def command(args: tuple[str, ...]) -> str:
    """Return the program as one line, in Docker's form: words with blanks are quoted."""
    return " ".join(f"'{a}'" if not a or any(c.isspace() for c in a) else a for a in args)


def _health(record: HealthRecord) -> str:
    if record.status is HealthStatus.STARTING:
        return "health: starting"
    return str(record.status)


def status(record: ContainerRecord, now: float) -> str:
    """Return ``Up 3 seconds`` or ``Exited (0) 2 minutes ago``; ``now`` is in Unix seconds."""
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


def changes(changed: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return the change list without the mount points of the engine's own mounts.

    ``changed`` holds paths with Docker's kinds: 0 modified, 1 added, 2 deleted. Directories that
    changed only because of those mount points are left out too.
    """
    return [{"Path": path, "Kind": kind} for path, kind in without_mount_points(changed)]
