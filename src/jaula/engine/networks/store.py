"""All networks by name and id: the three that are always there, and those that users made.

A record without an IPv4 subnet is one whose making was cut off: the start sweeps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from jaula.errors import InvalidRequest, NotFound
from jaula.spec.network import NetworkRecord
from jaula.state.database import Database

TABLE = "networks"

PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}
"""Names and drivers."""


def network_id(name: str) -> str:
    """The id of a predefined network: always the same, so that it survives everything."""
    return hashlib.sha256(f"jaula network {name}".encode()).hexdigest()


class NetworkStore:
    """The networks of one engine, kept in step with the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_name: dict[str, NetworkRecord] = {}

    def load(self) -> None:
        """Read every record.

        :raises CorruptState: one cannot be read.
        """
        for _, network in self._database.all(TABLE, NetworkRecord):
            self._by_name[network.name] = network

    def __iter__(self) -> Iterator[NetworkRecord]:
        """Users' networks."""
        return iter(tuple(self._by_name.values()))

    def get(self, name: str) -> NetworkRecord | None:
        """A user's network of exactly that name."""
        return self._by_name.get(name)

    def id_of(self, name: str) -> str:
        """The id of a network; '' for one that is gone."""
        if name in PREDEFINED:
            return network_id(name)
        network = self._by_name.get(name)
        return network.id if network else ""

    def driver_of(self, name: str) -> str:
        """The driver of a network; that of most for one that is gone."""
        network = self._by_name.get(name)
        return network.driver if network else PREDEFINED.get(name, "bridge")

    def find(self, ref: str) -> str:
        """The name of the network of a name, an id or a unique beginning of an id.

        :raises NotFound: there is none.
        :raises InvalidRequest: several ids begin like that.
        """
        if ref in PREDEFINED or ref in self._by_name:
            return ref
        ids = {network_id(name): name for name in PREDEFINED}
        ids |= {network.id: network.name for network in self}
        found = [name for key, name in ids.items() if ref and key.startswith(ref)]
        if len(found) > 1:
            raise InvalidRequest(
                f"network {ref} is ambiguous ({len(found)} matches found on ID prefix)"
            )
        if not found:
            raise NotFound(f"network {ref} not found")
        return found[0]

    def note(self, network: NetworkRecord) -> None:
        """Write that a network is being made; nobody finds it before :meth:`save`."""
        self._database.put(TABLE, network.id, network)

    def save(self, network: NetworkRecord) -> None:
        """Write a network that is there."""
        self._database.put(TABLE, network.id, network)
        self._by_name[network.name] = network

    def forget(self, network: NetworkRecord) -> None:
        """Remove a record."""
        self._database.delete(TABLE, network.id)
        self._by_name.pop(network.name, None)
