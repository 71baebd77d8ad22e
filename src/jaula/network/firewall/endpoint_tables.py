"""Tables with one chain for each restricted endpoint, of the families inet and bridge.

The chain of an endpoint is found by a map, so other containers pay for one lookup a packet. A
change is one transaction. The tables exist only while an endpoint is restricted.

Facts about the family bridge: connection tracking there is an option of the kernel
(CONFIG_NF_CONNTRACK_BRIDGE) that hosts lack. So the rules have no state for TCP: only a segment
that opens a connection is judged. For UDP a set has the flows of the other direction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from jaula.errors import Unsupported
from jaula.network.firewall.nftables import FirewallError, Nft
from jaula.spec.endpoint import Endpoint

REPLY = 120  # seconds after the last datagram of a flow of UDP
SEEN = 65536  # flows of UDP


class Family(NamedTuple):
    """An address family."""

    name: str  # of nftables
    key: str  # type of an address
    version: int


FAMILIES = (Family("ip", "ipv4_addr", 4), Family("ip6", "ipv6_addr", 6))


class EndpointTables(ABC):
    """The tables of one engine. ``endpoints`` returns the current bridge endpoints.

    ``subject`` is the name of the restriction for errors. Not thread safe: the caller holds the
    manager's lock.
    """

    subject: str

    def __init__(
        self, bridge: str, nft: Callable[[], Nft], endpoints: Callable[[], Iterable[Endpoint]]
    ) -> None:
        self._bridge = bridge
        self._nft = nft
        self._endpoints = endpoints
        self._loaded: set[str] = set()  # endpoint ids

    @property
    @abstractmethod
    def table(self) -> str:
        """The name of the tables."""

    @abstractmethod
    def is_restricted(self, endpoint: Endpoint) -> bool:
        """Return whether an endpoint has rules."""

    @abstractmethod
    def _tables(self) -> str:
        """Return commands that create the tables without endpoints."""

    @abstractmethod
    def _chain(self, endpoint: Endpoint) -> str:
        """Return commands that add the chains, sets and map elements of an endpoint."""

    @abstractmethod
    def _delete_chain(self, endpoint: Endpoint) -> str:
        """Return commands that remove what :meth:`_chain` added."""

    def add(self, endpoint: Endpoint) -> None:
        """Restrict an endpoint, before it can send.

        :raises Unsupported: when this kernel cannot enforce the rules.
        """
        if not self.is_restricted(endpoint):
            return
        commands = self._chain(endpoint)
        try:
            try:
                self._nft().run(self._new_tables() + commands)
            except FirewallError:
                self.load((*self._restricted(), endpoint))
        except FirewallError as exc:
            raise Unsupported(
                f"the {self.subject} of {endpoint.container_name} cannot be enforced:"
                f" {exc.message}",
                hint="the kernel needs nftables with the families inet and bridge (Linux 5.9)",
            ) from exc
        self._loaded.add(endpoint.endpoint_id)

    def _new_tables(self) -> str:
        """Return commands that create the tables for the first endpoint."""
        return "" if self._loaded else delete(self.table) + self._tables()

    def remove(self, endpoint: Endpoint) -> None:
        """Remove the rules of an endpoint that cannot send any more."""
        if endpoint.endpoint_id not in self._loaded:
            return
        self._loaded.discard(endpoint.endpoint_id)
        if not self._loaded:
            self._nft().run(delete(self.table))
            return
        try:
            self._nft().run(self._delete_chain(endpoint))
        except FirewallError:
            self.load()

    def load(self, endpoints: Iterable[Endpoint] | None = None) -> None:
        """Replace the tables with the rules of the endpoints.

        :raises FirewallError: when the kernel refuses.
        """
        rows = tuple(self._restricted() if endpoints is None else endpoints)
        text = delete(self.table)
        if rows:
            text += self._tables() + "".join(self._chain(row) for row in rows)
        self._nft().run(text)
        self._loaded = {row.endpoint_id for row in rows}

    def restore(self, listing: str) -> None:
        """Load the rules of a former engine's endpoints; remove its tables if none has rules.

        ``listing`` is ``nft list tables`` output.

        :raises FirewallError: when the kernel refuses.
        """
        if any(self._restricted()) or self.table in listing.split():
            self.load()

    def is_missing(self, listing: str) -> bool:
        """Return whether a loaded table is missing in ``nft list tables`` output."""
        lines = listing.splitlines()
        return bool(self._loaded) and not all(
            f"table {family} {self.table}" in lines for family in ("inet", "bridge")
        )

    def _restricted(self) -> Iterator[Endpoint]:
        return (endpoint for endpoint in self._endpoints() if self.is_restricted(endpoint))


def delete(table: str) -> str:
    """Return commands that remove the tables, present or not. Pure."""
    return "".join(
        f"table {family} {table} {{ }}\ndelete table {family} {table}\n"
        for family in ("inet", "bridge")
    )
