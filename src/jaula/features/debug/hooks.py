"""The copies for debug sessions of an engine, and the hook that removes those of a killed one."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from jaula.errors import JaulaError
from jaula.features.debug.debug_copy import DebugCopies

if TYPE_CHECKING:
    from jaula.engine.containers.containers import Containers
    from jaula.engine.model.container import Container

log = logging.getLogger("jaula.engine")


def debug_copies(containers: Containers) -> DebugCopies:
    """Return the copies for debug sessions."""
    remove = functools.partial(containers.remove, force=True, volumes=True)
    return DebugCopies(containers.services, remove)


async def remove_copy(containers: Containers, container: Container) -> None:
    """Remove the container of a debug session: its client's connection ended with the engine."""
    try:
        await containers.service(debug_copies).remove(container.id)
    except JaulaError as error:
        log.warning("%s", error)
