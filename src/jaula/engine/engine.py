"""The engine: every use case, over the parts that it is given."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from jaula.engine import restoring
from jaula.engine.containers import Containers
from jaula.engine.execs import Execs
from jaula.engine.images import Images
from jaula.engine.networks import Networks
from jaula.engine.system import System
from jaula.engine.users import Users
from jaula.engine.volumes import Volumes

if TYPE_CHECKING:
    from jaula.engine.parts import Parts

log = logging.getLogger("jaula.engine")


class Engine:
    """What the API serves."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        users = Users(parts)
        self.containers = Containers(parts, users)
        self.execs = Execs(parts, self.containers, users)
        self.images = Images(parts)
        self.volumes = Volumes(parts)
        self.networks = Networks(parts)
        self.system = System(parts, self)

    async def open(self) -> None:
        """Take over what a former engine left, sweep what it left half-made."""
        await restoring.restore(self.parts, self.containers)
        self.parts.sandboxes.refill()

    async def close(self) -> None:
        """Stop, and leave every container running."""
        for container in self.parts.registry:
            if container.restart is not None:
                container.restart.cancel()
            container.close_pending()
            if container.shim is not None:
                container.shim.on_gone = None
                container.shim.close()
        await self.containers.ending.close()
        await self.parts.sandboxes.close()
        # With nobody on it the bridge and its firewall go too.
        self.parts.network.teardown()
        self.parts.network.close()
        self.parts.database.close()
        self.parts.runtime.close()
