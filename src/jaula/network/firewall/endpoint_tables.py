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
from jaula.network.firewall.nft_command import FirewallError, LoadMissing, Nft
from jaula.network.ipam import link_local_address
from jaula.spec.endpoint_record import Endpoint

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
        self,
        bridge: str,
        nft: Callable[[], Nft],
        endpoints: Callable[[], Iterable[Endpoint]],
        load_missing: LoadMissing,
    ) -> None:
        self._bridge = bridge
        self._nft = nft
        self._endpoints = endpoints
        self._load_missing = load_missing
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
                self._load_missing()
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
            if not self._load_missing():
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


def short_id(endpoint: Endpoint) -> str:
    """Return the part of an endpoint's id in names of its chain and sets. Pure."""
    return endpoint.endpoint_id[:16]


def create(table: str, inet_chains: str, *, keyed_by: str) -> str:
    """Return commands that create the tables without endpoints. Pure.

    ``inet_chains`` are the base chains of the family inet. ``keyed_by`` is the interface of a
    packet by which the family bridge finds the chain of an endpoint: ``iifname`` judges what it
    sends, ``oifname`` what it receives. The set for UDP learns from the other direction.
    """
    other = "oifname" if keyed_by == "iifname" else "iifname"
    maps = "".join(
        f"\n  map chains{f.version} {{\n    type {f.key} : verdict\n  }}" for f in FAMILIES
    )
    seen = "".join(
        f"\n  set seen{f.version} {{\n    type {f.key} . inet_service . {f.key} . inet_service"
        f"\n    size {SEEN}\n    flags dynamic, timeout\n  }}"
        for f in FAMILIES
    )
    learn = "".join(
        f"\n    {other} @limited {f.name} {'protocol' if f.version == 4 else 'nexthdr'} udp"
        f" update @seen{f.version} {{ {f.name} daddr . udp dport . {f.name} saddr . udp sport"
        f" timeout {REPLY}s }}"
        for f in FAMILIES
    )
    return f"""
table inet {table} {{{maps}{inet_chains}
}}
table bridge {table} {{
  map chains {{
    type ifname : verdict
  }}
  set limited {{
    type ifname
  }}{seen}
  chain forward {{
    type filter hook forward priority filter; policy accept;{learn}
    {keyed_by} vmap @chains
  }}
}}
"""


def replies() -> Iterator[str]:
    """Yield the rules of the family bridge that accept packets of a flow that was judged. Pure."""
    yield "ip frag-off & 0x1fff != 0 accept"  # useless without the first one, which is judged
    yield "frag frag-off != 0 accept"
    yield "tcp flags & (fin | syn | rst | ack) != syn accept"
    for family in FAMILIES:
        yield (
            f"{family.name} saddr . udp sport . {family.name} daddr . udp dport"
            f" @seen{family.version} accept"
        )


def elements(endpoint: Endpoint) -> Iterator[tuple[str, str, str]]:
    """Yield family, set and element for each key of an endpoint. Pure."""
    target = f"jump c_{short_id(endpoint)}"
    if endpoint.ipv4:
        yield "inet", "chains4", f"{endpoint.ipv4} : {target}"
    if endpoint.ipv6:
        yield "inet", "chains6", f"{endpoint.ipv6} : {target}"
        yield "inet", "chains6", f"{link_local_address(endpoint.mac)} : {target}"
    yield "bridge", "chains", f'"{endpoint.host_interface}" : {target}'
    yield "bridge", "limited", f'"{endpoint.host_interface}"'


def add_elements(table: str, endpoint: Endpoint) -> list[str]:
    """Return commands that add the keys of an endpoint. Pure."""
    return [
        f"add element {family} {table} {where} {{ {row} }}"
        for family, where, row in elements(endpoint)
    ]


def delete_elements(table: str, endpoint: Endpoint) -> list[str]:
    """Return commands that delete the keys of an endpoint. Pure."""
    return [
        f"delete element {family} {table} {where} {{ {row.partition(' :')[0]} }}"
        for family, where, row in elements(endpoint)
    ]


def delete(table: str) -> str:
    """Return commands that remove the tables, present or not. Pure."""
    return "".join(
        f"table {family} {table} {{ }}\ndelete table {family} {table}\n"
        for family in ("inet", "bridge")
    )
