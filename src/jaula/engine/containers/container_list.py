"""Docker's summaries of containers (``GET /containers/json``) and its list of changes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaula.engine.containers.container_inspect import manifest_descriptor, mounts, pod
from jaula.engine.networks import network_settings
from jaula.errors import CorruptState, NotFound
from jaula.spec.units import human_duration
from jaula.state.container_records import ContainerRecord, HealthRecord, HealthStatus, Status

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services


def summary(
    services: Services, container: Container, aliases: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return the summary of one container, without sizes.

    ``aliases`` has the names that links give to containers, by id.
    """
    record = container.record
    mode = record.body.host_config.network_mode
    annotations = dict(record.host_config.annotations)
    health = record.health
    return {
        "Id": record.id,
        "Names": [f"/{record.name}", *aliases.get(record.id, ())],
        "Image": _image_name(services, record),
        "ImageID": record.image,
        "ImageManifestDescriptor": manifest_descriptor(services, container),
        "Command": command(record.args),
        "Created": record.created // 1_000_000_000,
        "Ports": network_settings.listed_ports(record),
        "Labels": record.body.labels,  # no copy: it may have megabytes
        "State": str(record.status),
        "Status": status(record, time.time()),
        "HostConfig": {
            "NetworkMode": "bridge" if mode in ("", "default") else mode,
            **({"Annotations": annotations} if annotations else {}),
        },
        "NetworkSettings": {
            "Networks": network_settings.networks(record, services.network_store.id_of)
        },
        "Mounts": mounts(record),
        "Health": {
            "Status": "none" if health is None else str(health.status),
            "FailingStreak": 0 if health is None else health.failing_streak,
        },
        **pod(services, record),
    }


def _image_name(services: Services, record: ContainerRecord) -> str:
    """Return the name from the request, or the id if the name refers to another image now."""
    if not record.image:
        return ""  # the sandbox of a pod
    try:
        if record.image in services.images.ids_with(services.images.resolve(record.body.image).id):
            return record.body.image
    except (CorruptState, NotFound):
        pass  # the image is damaged, removed or renamed: the id identifies it
    return record.image


def command(args: tuple[str, ...]) -> str:
    """Return the program as one line, in Docker's form: words with blanks are quoted."""
    return " ".join(f"'{a}'" if a.split(None, 1) != [a] else a for a in args)


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
