"""Which containers need a volume, and its removal while none does.

A container that is being created has no record yet. It pins its volumes until its record names
them, so that ``volume prune`` cannot remove one in between. A container that asks for a volume
while that is being removed waits, and gets a new one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jaula.engine.threads import in_thread
from jaula.errors import Conflict

if TYPE_CHECKING:
    from jaula.engine.model.container_store import ContainerStore
    from jaula.storage.volumes import VolumeStore

Ids = list[str]


class VolumeReferences:
    """The containers of every volume."""

    def __init__(self, volumes: VolumeStore, containers: ContainerStore) -> None:
        self._volumes = volumes
        self._containers = containers
        self._pinned: dict[str, Ids] = {}  # by volume: containers that are being created
        self._removals: dict[str, asyncio.Event] = {}  # by volume

    def users(self) -> dict[str, Ids]:
        """Return used volumes with the ids of the containers that need them. Safe in any thread."""
        users = {name: list(ids) for name, ids in tuple(self._pinned.items())}
        for container in self._containers:
            for mount in container.record.mounts:
                if mount.type == "volume":
                    ids = users.setdefault(mount.name, [])
                    if container.id not in ids:
                        ids.append(container.id)
        return users

    async def pin(self, name: str, container_id: str) -> None:
        """Keep a volume, which need not exist yet, until :meth:`unpin`.

        A removal that has begun ends first.
        """
        while (removal := self._removals.get(name)) is not None:
            await removal.wait()
        self._pinned.setdefault(name, []).append(container_id)

    def unpin(self, name: str, container_id: str) -> None:
        """Undo one :meth:`pin`."""
        self._pinned[name].remove(container_id)
        if not self._pinned[name]:
            del self._pinned[name]

    async def remove(self, name: str) -> None:
        """Remove a volume with its files.

        :raises Conflict: when a container needs it, or something is mounted in it.
        :raises NotFound: when it does not exist.
        """
        while (removal := self._removals.get(name)) is not None:
            await removal.wait()
        if users := self.users().get(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        removal = self._removals[name] = asyncio.Event()
        try:
            await in_thread(self._volumes.remove, name)
        finally:
            del self._removals[name]
            removal.set()
