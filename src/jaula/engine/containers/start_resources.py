"""What a start takes: namespaces of other containers, ids, a sandbox, endpoints."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from jaula.cgroups import own_memory
from jaula.engine.userns.container_ids import id_maps
from jaula.sandbox.fork_server import SERVER
from jaula.state.container_records import StartIntent

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdMaps, IdRange
    from jaula.engine.volumes.staged_mounts import StagedMounts
    from jaula.runtime.runtime_client import Sandbox, SpareInit
    from jaula.spec.endpoint_record import Endpoint
    from jaula.state.container_records import ContainerRecord


_MEMORY = own_memory.OwnMemory()


class StartResources:
    """The resources that one start has taken: ids, a sandbox, endpoints; :meth:`release` undoes it.

    ``ids`` are those of the container's user namespace, None if that is the host's. ``reserved`` is
    the range to release at the end. They differ if a container joins a user namespace but has a
    network of its own; ``shared_ids`` then counts one more container. ``joined_fds`` are
    descriptors of another container's namespaces, or of one that was created before, by OCI type.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self.ids: IdRange | None = None
        self.reserved: IdRange | None = None
        self.shared_ids: IdRange | None = None
        self.joined_fds: dict[str, int] = {}
        self.sandbox: Sandbox | None = None
        self.init: SpareInit | None = None  # in the sandbox
        self.endpoints: list[Endpoint] = []
        self.images: StagedMounts | None = None  # mounted for the bundle

    @property
    def net_fd(self) -> int:
        """Return the descriptor of the sandbox's network namespace."""
        assert self.sandbox is not None
        return self.sandbox.net_fd

    def close_sandbox(self) -> None:
        """Close our descriptors; the container's processes hold the namespaces.

        A spare init ends unless the start has it.
        """
        if self.init is not None:
            self.init.close()
            self.init = None
        if self.sandbox is not None:
            self.sandbox.close()
            self.sandbox = None
        while self.joined_fds:
            os.close(self.joined_fds.popitem()[1])

    def id_maps(self, record: ContainerRecord) -> IdMaps:
        """Return the id maps of the container's user namespace; empty if that is the host's."""
        return id_maps(self._services, record, self.ids, is_borrowed=self.shared_ids is not None)

    def detach_images(self) -> None:
        """Detach the mounts of images, which the container has."""
        if self.images is not None:
            self.images.detach()
            self.images = None

    def release(self) -> None:
        """Release everything that the start took."""
        while self.endpoints:
            self._services.network_manager.detach(self.endpoints.pop())
        self.close_sandbox()
        if self.reserved is not None:
            self._services.id_ranges.release(self.reserved.start)
            self.reserved = None
        if self.shared_ids is not None:
            self._services.id_ranges.release(self.shared_ids.start)
            self.shared_ids = None


async def make_room(name: str) -> None:
    """Check that the engine's cgroup has memory for a start, which idle processes leave.

    :raises Unavailable: when it has none.
    """
    if not _MEMORY.has_room(own_memory.START):
        await asyncio.to_thread(SERVER.end_idle)
        _MEMORY.check(f"cannot start container {name}", own_memory.START)


def intent(resources: StartResources) -> StartIntent:
    """Return the intent to start: the addresses and ids that the container will have."""
    reserved, shared = resources.reserved, resources.shared_ids
    endpoints = resources.endpoints
    return StartIntent(
        # Before the first output: clients request logs from this time on.
        started_at=time.time_ns(),
        range_start=reserved.start if reserved else 0,
        range_size=reserved.size if reserved else 0,
        borrowed_start=shared.start if shared else 0,
        borrowed_size=shared.size if shared else 0,
        endpoint=endpoints[0] if endpoints else None,
        more_endpoints=tuple(endpoints[1:]),
        ports=tuple(port for endpoint in endpoints for port in endpoint.ports),
    )
