"""Which containers need a volume, and its removal while none does.

A container that is being created has no record yet. It pins its volumes until its record names
them, so that ``volume prune`` cannot remove one in between. A container that asks for a volume
while that is being removed waits, and gets a new one.

A transaction, such as the creation of a container, may fail after it has created a volume. It
removes the volume by its own word, which the volume has, and never by name. A volume that another
client uses meanwhile is adopted: it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaula.engine.threads import in_thread
from jaula.errors import Conflict

if TYPE_CHECKING:
    from jaula.engine.model.container_store import ContainerStore
    from jaula.state.container_records import MountRecord
    from jaula.storage.volume_directories import VolumeStore

Ids = list[str]


class VolumeReferences:
    """The containers of every volume."""

    def __init__(self, volumes: VolumeStore, containers: ContainerStore) -> None:
        self._volumes = volumes
        self._containers = containers
        self._pinned: dict[str, Ids] = {}  # by volume: containers that are being created
        self._named: dict[str, dict[str, None]] = {}  # by volume: containers with a record
        self._counted: dict[str, tuple[MountRecord, ...]] = {}  # by container: mounts in _named
        self._lock = threading.Lock()  # of these two
        self._removals: dict[str, asyncio.Event] = {}  # by volume
        self._transactions: dict[str, int] = {}  # open ones, and how often they were begun

    def users(self) -> dict[str, Ids]:
        """Return used volumes with the ids of the containers that need them. Safe in any thread."""
        with self._lock:
            self._count()
            users = {name: list(ids) for name, ids in self._named.items()}
        for name, ids in tuple(self._pinned.items()):
            users[name] = list(dict.fromkeys((*ids, *users.get(name, ()))))
        return users

    def users_of(self, name: str) -> Ids:
        """Return the ids of the containers that need a volume. Safe in any thread."""
        with self._lock:
            self._count()
            named = tuple(self._named.get(name, ()))
        return list(dict.fromkeys((*self._pinned.get(name, ()), *named)))

    def _count(self) -> None:
        """Bring the index up to date: only the mounts that a record has got since are read."""
        mounts = {container.id: container.record.mounts for container in self._containers}
        for container_id in self._counted.keys() - mounts.keys():
            self._forget(container_id)
        for container_id, current in mounts.items():
            if self._counted.get(container_id) is current:
                continue
            self._forget(container_id)
            self._counted[container_id] = current
            for mount in current:
                if mount.type == "volume":
                    self._named.setdefault(mount.name, {})[container_id] = None

    def _forget(self, container_id: str) -> None:
        for mount in self._counted.pop(container_id, ()):
            ids = self._named.get(mount.name)
            if ids is not None:
                ids.pop(container_id, None)
                if not ids:
                    del self._named[mount.name]

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

    def begin(self, transaction: str) -> None:
        """Open a transaction: a volume of it that another client uses before :meth:`end` stays."""
        self._transactions[transaction] = self._transactions.get(transaction, 0) + 1

    def end(self, transaction: str) -> None:
        """Undo one :meth:`begin`."""
        self._transactions[transaction] -= 1
        if not self._transactions[transaction]:
            del self._transactions[transaction]

    @contextlib.contextmanager
    def transaction(self, word: str) -> Iterator[None]:
        """Keep a transaction open."""
        self.begin(word)
        try:
            yield
        finally:
            self.end(word)

    async def adopt(self, name: str, transaction: str = "") -> None:
        """Keep a volume that an open transaction other than ``transaction`` has created.

        :raises NotFound: when it does not exist.
        """
        creator = self._volumes.get(name).transaction
        if creator in self._transactions and creator != transaction:
            await in_thread(self._volumes.adopt, name)

    async def claim(self, name: str, transaction: str = "") -> None:
        """Keep a volume that a request other than those of ``transaction`` has created.

        A transaction of a client has no end that the engine knows.

        :raises NotFound: when it does not exist.
        """
        if self._volumes.get(name).transaction not in ("", transaction):
            await in_thread(self._volumes.adopt, name)

    async def remove(
        self, name: str, *, transaction: str | None = None, id: str | None = None
    ) -> None:
        """Remove a volume with its files.

        With ``transaction`` only if that has created it, with ``id`` only that volume.

        :raises Conflict: when a container needs it, or something is mounted in it.
        :raises NotFound: when it does not exist, or is not that one.
        """
        while (removal := self._removals.get(name)) is not None:
            await removal.wait()
        if users := self.users_of(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        removal = self._removals[name] = asyncio.Event()
        try:
            await in_thread(self._volumes.remove, name, transaction=transaction, id=id)
        finally:
            del self._removals[name]
            removal.set()
