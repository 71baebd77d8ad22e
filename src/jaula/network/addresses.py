"""Which subnet a bridge gets, and which address a container gets. Pure decisions.

Addresses are handed out in turn, not lowest first: an address that was just given back may still
be answered for by the interface of a container whose namespace the kernel has not yet taken down.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from jaula.errors import Conflict, InvalidRequest, JaulaError

SUBNET_PREFIX = 20
"""Bits of a subnet from the pool. A Linux bridge has at most 1024 ports (BR_MAX_PORTS)."""


def parse_subnet(text: str) -> IPv4Network:
    """A CIDR with room for a gateway and a container; InvalidRequest for anything else."""
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError as exc:
        raise InvalidRequest(f"invalid subnet {text!r}: {exc}") from exc
    if subnet.prefixlen > 30 or subnet.prefixlen < 8:
        raise InvalidRequest(f"invalid subnet {text!r}", hint="the prefix must be from /8 to /30")
    return subnet


def parse_pool(text: str) -> tuple[IPv4Network, ...]:
    """Comma-separated CIDRs from which subnets are taken."""
    return tuple(parse_subnet(part.strip()) for part in text.split(",") if part.strip())


def choose_subnet(
    pool: Iterable[IPv4Network],
    taken: Iterable[IPv4Network],
    *,
    prefix: int = SUBNET_PREFIX,
) -> IPv4Network:
    """The first subnet of the pool that overlaps nothing in ``taken``, the host's routes.

    A default route takes nothing. Raises ``JaulaError`` when the pool is used up.
    """
    pools = tuple(pool)
    busy = [network for network in taken if network.prefixlen > 0]
    for whole in pools:
        for subnet in whole.subnets(new_prefix=max(prefix, whole.prefixlen)):
            if not any(subnet.overlaps(other) for other in busy):
                return subnet
    raise JaulaError(
        f"no free subnet in {', '.join(map(str, pools)) or 'an empty pool'}:"
        " every one overlaps a route of this host",
        hint="name one with --bridge-subnet, or another pool with --address-pool",
    )


def mac_of(address: IPv4Address) -> str:
    """A MAC that follows from the address, ``02:42`` before its bytes as Docker has it.

    A neighbour's ARP entry stays right when another container gets the address.
    """
    return "02:42:" + address.packed.hex(":")


class Addresses:
    """The addresses of one subnet; the first host address is the gateway's."""

    def __init__(self, subnet: IPv4Network, gateway: IPv4Address | None = None) -> None:
        self.subnet = subnet
        self.gateway = gateway or subnet[1]
        self._taken: set[int] = {int(self.gateway)}
        self._first = int(subnet.network_address) + 1
        self._last = int(subnet.broadcast_address) - 1
        self._next = self._first

    def allocate(self, wanted: str | None = None) -> IPv4Address:
        """Take an address, the wanted one or the next in turn.

        Raises ``InvalidRequest`` for one outside the subnet, ``Conflict`` for one in use and
        ``JaulaError`` when none is left.
        """
        if wanted is not None:
            return self._take(wanted)
        if len(self._taken) > self._last - self._first:
            raise JaulaError(
                f"no available IPv4 address in {self.subnet}", hint="remove containers that ended"
            )
        while self._next in self._taken:
            self._advance()
        found = self._next
        self._taken.add(found)
        self._advance()
        return IPv4Address(found)

    def _take(self, wanted: str) -> IPv4Address:
        try:
            address = IPv4Address(wanted)
        except ValueError as exc:
            raise InvalidRequest(f"invalid IPv4 address {wanted!r}") from exc
        if not self._first <= int(address) <= self._last:
            raise InvalidRequest(f"address {address} is not in the network's subnet {self.subnet}")
        if int(address) in self._taken:
            raise Conflict(f"address already in use: {address}")
        self._taken.add(int(address))
        return address

    def _advance(self) -> None:
        self._next = self._first if self._next >= self._last else self._next + 1

    def release(self, address: str) -> None:
        """Give an address back; one that is not taken is no error."""
        if IPv4Address(address) != self.gateway:
            self._taken.discard(int(IPv4Address(address)))
