"""Which subnet a bridge gets, and which address a container gets. Pure decisions.

Addresses are handed out in turn, not lowest first: an address that was just given back may still
be answered for by the interface of a container whose namespace the kernel has not yet taken down.


The pools that subnets are taken from, and the one that a network gets. Pure.

Follows Docker's ``default-address-pools``: a pool is a network and the size of its subnets.


What addresses a network is to have: asked for, or from the pools. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeVar

import msgspec

from jaula.errors import Conflict, InvalidRequest, JaulaError

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


def parse_subnet(text: str) -> IPv4Network:
    """A CIDR with room for a gateway and a container; InvalidRequest for anything else."""
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError as exc:
        raise InvalidRequest(f"invalid subnet {text!r}: {exc}") from exc
    if subnet.prefixlen > 30 or subnet.prefixlen < 8:
        raise InvalidRequest(f"invalid subnet {text!r}", hint="the prefix must be from /8 to /30")
    return subnet


def parse_subnet6(text: str) -> IPv6Network:
    """An IPv6 CIDR; InvalidRequest for anything else."""
    try:
        subnet = IPv6Network(text, strict=False)
    except ValueError as exc:
        raise InvalidRequest(f"invalid subnet {text!r}: {exc}") from exc
    if subnet.prefixlen > 125 or subnet.prefixlen < 8 or subnet.is_link_local:
        raise InvalidRequest(
            f"invalid subnet {text!r}",
            hint="the prefix must be from /8 to /125, and not link-local",
        )
    return subnet


def unique_local_subnet(seed: bytes) -> IPv6Network:
    """A unique local /64 (RFC 4193) that follows from 7 bytes that are nobody else's."""
    return IPv6Network((b"\xfd" + seed[:7] + bytes(8), 64))


def link_local_address(mac: str) -> IPv6Address:
    """The address that an interface gives itself from its MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    )


def mac_from_address(address: Address) -> str:
    """A MAC that follows from the address, ``02:42`` before its bytes as Docker has it.

    A neighbour's ARP entry stays right when another container gets the address.
    """
    return "02:42:" + address.packed[-4:].hex(":")


class Addresses:
    """The addresses of one subnet; the first host address is the gateway's, if none is named.

    ``within`` is the part of the subnet from which the next in turn is taken; an address that is
    asked for may be any of the subnet. ``reserved`` are given to nobody.
    """

    def __init__(
        self,
        subnet: Subnet,
        gateway: Address | None = None,
        *,
        within: Subnet | None = None,
        reserved: Iterable[Address] = (),
    ) -> None:
        self.subnet = subnet
        self.gateway: Address = gateway or subnet[1]
        self._kept = {int(self.gateway), *map(int, reserved)}
        self._taken: set[int] = set(self._kept)
        self._lowest = int(subnet.network_address) + 1
        self._highest = int(subnet.broadcast_address) - 1
        part = within or subnet
        self._first = max(self._lowest, int(part.network_address))
        self._last = min(self._highest, int(part.broadcast_address))
        self._next = self._first

    def allocate(self, wanted: str | None = None) -> Address:
        """Take an address, the wanted one or the next in turn.

        Raises ``InvalidRequest`` for one outside the subnet, ``Conflict`` for one in use and
        ``JaulaError`` when none is left.
        """
        if wanted is not None:
            return self._take(wanted)
        if len(self._taken) > self._last - self._first:
            self._check_room()
        while self._next in self._taken:
            self._advance()
        found = self._next
        self._taken.add(found)
        self._advance()
        return self._address(found)

    def _check_room(self) -> None:
        if sum(self._first <= number <= self._last for number in self._taken) > (
            self._last - self._first
        ):
            raise JaulaError(
                f"no available IPv{self.subnet.version} address in {self.subnet}",
                hint="remove containers that ended",
            )

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)

    def _take(self, wanted: str) -> Address:
        version = self.subnet.version
        try:
            address = ip_address(wanted)
        except ValueError as exc:
            raise InvalidRequest(f"invalid IPv{version} address {wanted!r}") from exc
        if address.version != version:
            raise InvalidRequest(f"invalid IPv{version} address {wanted!r}")
        if not self._lowest <= int(address) <= self._highest:
            raise InvalidRequest(f"address {address} is not in the network's subnet {self.subnet}")
        if int(address) in self._taken:
            raise Conflict(f"address already in use: {address}")
        self._taken.add(int(address))
        return address

    def _advance(self) -> None:
        self._next = self._first if self._next >= self._last else self._next + 1

    def release(self, address: str) -> None:
        """Give an address back; one that is not taken is no error."""
        number = int(ip_address(address))
        if number not in self._kept:
            self._taken.discard(number)


SUBNET_PREFIX, SUBNET_PREFIX6 = 20, 64
"""Bits of a subnet where a pool names none. A bridge has at most 1024 ports (BR_MAX_PORTS)."""

_S = TypeVar("_S", IPv4Network, IPv6Network)


class AddressPool(NamedTuple):
    """Subnets of ``size`` bits within ``base``."""

    base: IPv4Network | IPv6Network
    size: int

    def __str__(self) -> str:
        return f"{self.base} in subnets of /{self.size}"


def address_pool(base: str, size: int | None = None) -> AddressPool:
    """One pool. Raises ``InvalidRequest`` for subnets that cannot be."""
    try:
        network = ip_network(base)
    except ValueError as exc:
        raise InvalidRequest(f"invalid address pool {base!r}: {exc}") from exc
    usual, most = (SUBNET_PREFIX, 30) if network.version == 4 else (SUBNET_PREFIX6, 125)
    if size is None:
        size = max(usual, network.prefixlen)
    if not max(network.prefixlen, 8) <= size <= most:
        raise InvalidRequest(
            f"invalid address pool {base}: no subnets of /{size} fit in it",
            hint=f"the size must be from {max(network.prefixlen, 8)} to {most}",
        )
    return AddressPool(network, size)


def parse_pools(text: str) -> tuple[AddressPool, ...]:
    """``NETWORK[@SIZE]``, by commas. Raises ``InvalidRequest``."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        base, at, size = part.partition("@")
        if at and not (size.isascii() and size.isdigit()):
            raise InvalidRequest(f"invalid address pool {part!r}", hint="write NETWORK@SIZE")
        found.append(address_pool(base, int(size) if at else None))
    return tuple(found)


def choose_subnet(pools: Iterable[AddressPool], taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first IPv4 subnet that overlaps nothing in ``taken``, which are the host's routes too.

    A default route takes nothing. Raises ``JaulaError`` when the pools are used up.
    """
    return _first_of([p for p in pools if isinstance(p.base, IPv4Network)], IPv4Network, taken)


def choose_subnet6(
    pools: Iterable[AddressPool], taken: Iterable[IPv6Network]
) -> IPv6Network | None:
    """The same for IPv6; None where no pool is for it, ``JaulaError`` when they are used up."""
    usable = [pool for pool in pools if isinstance(pool.base, IPv6Network)]
    return _first_of(usable, IPv6Network, taken) if usable else None


def _first_of(pools: list[AddressPool], kind: type[_S], taken: Iterable[_S]) -> _S:
    busy = [network for network in taken if network.prefixlen > 0]
    for pool in pools:
        assert isinstance(pool.base, kind)
        found = _first_free(pool.base, pool.size, busy)
        if found is not None:
            return found
    raise _used_up(pools)


def _first_free(base: _S, size: int, busy: list[_S]) -> _S | None:
    """The first subnet beside all of ``busy``; what is in the way is stepped over at once."""
    step = 1 << (base.max_prefixlen - size)
    number, last = int(base.network_address), int(base.broadcast_address)
    while number <= last:
        subnet = type(base)((number, size))
        clash = next((other for other in busy if subnet.overlaps(other)), None)
        if clash is None:
            return subnet
        number = -(-(int(clash.broadcast_address) + 1) // step) * step
    return None


def _used_up(pools: list[AddressPool]) -> JaulaError:
    return JaulaError(
        f"no free subnet in {', '.join(map(str, pools)) or 'an empty pool'}: every one overlaps a"
        " network or a route of this host",
        hint="remove unused networks (network prune), name one with --subnet, or add to"
        " default-address-pools (--address-pool)",
    )


class IpamPlan(msgspec.Struct, frozen=True):
    """``fixed`` is the IPv4 subnet; without it, the first free one of ``pools``.

    ``within`` and ``reserved`` are as in :class:`Addresses`.
    """

    fixed: IPv4Network | None = None
    pools: tuple[AddressPool, ...] = ()
    gateway: IPv4Address | None = None
    within: IPv4Network | None = None
    reserved: tuple[IPv4Address, ...] = ()

    def choose(self, taken: Iterable[IPv4Network]) -> IPv4Network:
        """The subnet; JaulaError if the pools are used up."""
        return self.fixed or choose_subnet(self.pools, taken)

    def addresses(self, subnet: IPv4Network) -> Addresses:
        """Those of the subnet that this plan leaves to containers."""
        return Addresses(subnet, self.gateway, within=self.within, reserved=self.reserved)
