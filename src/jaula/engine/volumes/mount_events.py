"""Events of volumes that a container uses: ``mount`` at its start, ``unmount`` at its end.

Source: Docker Engine API 1.45, ``SystemEvents``; what they say of a volume is dockerd's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaula.engine.model.events import EventBus
    from jaula.state.records import ContainerRecord


def emit_mounts(events: EventBus, record: ContainerRecord) -> None:
    """The container's first process can see them."""
    for mount in record.mounts:
        if mount.type == "volume":
            about = {
                "container": record.id,
                "destination": mount.destination,
                "driver": mount.driver,
                "propagation": mount.propagation,
                "read/write": str(not mount.read_only).lower(),
            }
            events.emit("volume", "mount", mount.name, about)


def emit_unmounts(events: EventBus, record: ContainerRecord) -> None:
    """Nobody in the container can any more."""
    for mount in record.mounts:
        if mount.type == "volume":
            about = {"container": record.id, "driver": mount.driver}
            events.emit("volume", "unmount", mount.name, about)
