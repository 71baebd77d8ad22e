"""The changes of an engine's containers, and the hooks that undo and show them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from jaula.errors import JaulaError
from jaula.features.edit.edit_container import Edits
from jaula.logs import timestamp

if TYPE_CHECKING:
    from jaula.engine.containers.containers import Containers
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord

log = logging.getLogger("jaula.engine")


def edits(containers: Containers) -> Edits:
    """Return the changes of containers."""
    return Edits(containers.services, containers.starter, containers.health)


async def undo(containers: Containers, container: Container) -> None:
    """Undo an interrupted change of a container whose shim answers, or that does not run."""
    if container.live and (container.shim is None or not container.shim.pid):
        return  # done when its shim answers, or before the next change
    try:
        async with container.lock:
            await containers.service(edits).undo(container)
    except JaulaError as error:
        log.warning("container %s: %s", container.name, error)


def inspect(services: Services, record: ContainerRecord) -> dict[str, Any]:
    """Return the member ``Changes`` of a container that ``edit`` has changed."""
    return {
        "Changes": [
            {
                "At": timestamp.format_time(change.at),
                "By": change.by,
                "Changes": list(change.changes),
                "Running": change.running,
            }
            for change in record.live_changes
        ]
    }
