"""All networks by name and id: the three predefined ones and those that users created.

A record without an IPv4 subnet is of a network whose creation was interrupted: the engine removes
it at its start.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from jaula.caller_quota import OwnedSizes
from jaula.errors import InvalidRequest, NotFound
from jaula.sha256 import sha256
from jaula.spec.network_record import NetworkRecord
from jaula.state.database import Database

TABLE = "networks"

PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}
"""Drivers by name."""


@functools.lru_cache(maxsize=64)
def network_id(name: str) -> str:
    """Return the id of a predefined network, which never changes."""
    return sha256(f"jaula network {name}".encode()).hexdigest()


class NetworkStore:
    """The networks of one engine, kept in step with the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_name: dict[str, NetworkRecord] = {}
        self.sizes = OwnedSizes()  # of the records as they are stored

    def load(self) -> None:
        """Read every record.

        :raises CorruptState: when one cannot be read.
        """
        sizes = self._database.sizes(TABLE)
        for _, network in self._database.all(TABLE, NetworkRecord):
            self._by_name[network.name] = network
            self.sizes.set(network.id, network.owner, sizes[network.id])

    def __iter__(self) -> Iterator[NetworkRecord]:
        """Iterate over users' networks."""
        return iter(tuple(self._by_name.values()))

    def get(self, name: str) -> NetworkRecord | None:
        """Return the user's network of exactly that name, or None."""
        return self._by_name.get(name)

    def id_of(self, name: str) -> str:
        """Return the id of a network, '' if it is gone."""
        if name in PREDEFINED:
            return network_id(name)
        network = self._by_name.get(name)
        return network.id if network else ""

    def driver_of(self, name: str) -> str:
        """Return the driver of a network, ``bridge`` if it is gone."""
        network = self._by_name.get(name)
        return network.driver if network else PREDEFINED.get(name, "bridge")

    def find(self, ref: str) -> str:
        """Return the name of the network for ``ref`` (id, name or unique id prefix, in this order).

        :raises NotFound: when there is none.
        :raises InvalidRequest: when several ids have the prefix.
        """
        ids = {network_id(name): name for name in PREDEFINED}
        ids |= {network.id: network.name for network in self}
        if ref in ids:  # before a network whose name is the id of another one
            return ids[ref]
        if ref in PREDEFINED or ref in self._by_name:
            return ref
        matches = [name for key, name in ids.items() if ref and key.startswith(ref)]
        if len(matches) > 1:
            raise InvalidRequest(
                f"network {ref} is ambiguous ({len(matches)} matches found on ID prefix)"
            )
        if not matches:
            raise NotFound(f"network {ref} not found")
        return matches[0]

    def save_pending(self, network: NetworkRecord) -> None:
        """Write that a network is being created; it is not found before :meth:`save`."""
        self._put(network)

    def save(self, network: NetworkRecord) -> None:
        """Write a network that was created."""
        self._put(network)
        self._by_name[network.name] = network

    def _put(self, network: NetworkRecord) -> None:
        size = self._database.put(TABLE, network.id, network)
        self.sizes.set(network.id, network.owner, size)

    def forget(self, network: NetworkRecord) -> None:
        """Remove a record."""
        self._database.delete(TABLE, network.id)
        self._by_name.pop(network.name, None)
        self.sizes.drop(network.id)
