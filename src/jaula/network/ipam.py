"""IP address management: address pools, the subnet of a network, the addresses of containers. Pure.

Pools follow Docker's ``default-address-pools``: a pool is a network and the size of its subnets.

Addresses are allocated in turn, not lowest first. The interface of a stopped container may still
answer for an address that was just released, until the kernel has destroyed the namespace.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeVar

import msgspec

from jaula.errors import InvalidRequest, JaulaError, NotAuthorized

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network
_MAX_COUNT = 2**64 - 1  # of a JSON member that is a Go uint64


def parse_subnet(text: str) -> IPv4Network:
    """Parse an IPv4 CIDR with room for a gateway and a container.

    :raises InvalidRequest: when the text is not such a subnet.
    """
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError as exc:
        raise InvalidRequest(f"invalid subnet {text!r}: {exc}") from exc
    if subnet.prefixlen > 30 or subnet.prefixlen < 8:
        raise InvalidRequest(f"invalid subnet {text!r}", hint="the prefix must be from /8 to /30")
    return subnet


def parse_subnet6(text: str) -> IPv6Network:
    """Parse an IPv6 CIDR.

    :raises InvalidRequest: when the text is not a usable subnet.
    """
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
    """Return a unique local /64 (RFC 4193) derived from 7 bytes that must be globally unique."""
    return IPv6Network((b"\xfd" + seed[:7] + bytes(8), 64))


def link_local_address(mac: str) -> IPv6Address:
    """Return the address that an interface derives from its MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    )


def mac_from_address(address: Address) -> str:
    """Return a MAC derived from the address: ``02:42`` and four bytes, as in Docker.

    A neighbour's ARP entry stays valid when another container gets the address. For IPv6 the bytes
    are a checksum, since two addresses of a network may have the same last four bytes.
    """
    raw = address.packed if address.version == 4 else zlib.crc32(address.packed).to_bytes(4, "big")
    return "02:42:" + raw.hex(":")


def random_mac() -> str:
    """Return a random MAC in the range of :func:`mac_from_address`, for a port without address."""
    return "02:42:" + os.urandom(4).hex(":")


class AddressUsage(NamedTuple):
    """Counts of the addresses of a subnet, at most 2**64 - 1 each.

    ``in_use`` includes those that no container can have. ``available`` are in the range that
    addresses are allocated from.
    """

    in_use: int
    available: int


class Addresses:
    """The addresses of one subnet. The gateway defaults to the first host address.

    Addresses are allocated from ``ip_range``, a part of the subnet; a requested address may be any
    address of the subnet. ``reserved`` addresses are never allocated.
    """

    def __init__(
        self,
        subnet: Subnet,
        gateway: Address | None = None,
        *,
        ip_range: Subnet | None = None,
        reserved: Iterable[Address] = (),
    ) -> None:
        self.subnet = subnet
        self.gateway: Address = gateway or subnet[1]
        self._reserved = {int(self.gateway), *map(int, reserved)}
        self._taken: set[int] = set(self._reserved)
        self._lowest = int(subnet.network_address) + 1
        self._highest = int(subnet.broadcast_address) - 1
        part = ip_range or subnet
        self._first = max(self._lowest, int(part.network_address))
        self._last = min(self._highest, int(part.broadcast_address))
        self._next = self._first

    def has(self, address: str) -> bool:
        """Return whether an address belongs to the subnet's hosts, in use or not."""
        try:
            number = int(ip_address(address))
        except ValueError:
            return False
        return ip_address(address) in self.subnet and self._lowest <= number <= self._highest

    def is_free(self, address: str) -> bool:
        """Return whether an address of the subnet is not in use."""
        return self.has(address) and int(ip_address(address)) not in self._taken

    def allocate(self, requested: str | None = None) -> Address:
        """Allocate the requested address, or the next free one.

        :raises InvalidRequest: when the address is malformed or outside the subnet.
        :raises NotAuthorized: when the address is in use (Docker's status and words).
        :raises JaulaError: when no address is free.
        """
        if requested is not None:
            return self._take(requested)
        if len(self._taken) > self._last - self._first:
            self._check_room()
        while self._next in self._taken:
            self._advance()
        result = self._next
        self._taken.add(result)
        self._advance()
        return self._address(result)

    def _check_room(self) -> None:
        if sum(self._first <= number <= self._last for number in self._taken) > (
            self._last - self._first
        ):
            raise JaulaError(
                f"no available IPv{self.subnet.version} address in {self.subnet}",
                hint="remove stopped containers",
            )

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)

    def _take(self, requested: str) -> Address:
        version = self.subnet.version
        try:
            address = ip_address(requested)
        except ValueError as exc:
            raise InvalidRequest(f"invalid IPv{version} address {requested!r}") from exc
        if address.version != version:
            raise InvalidRequest(f"invalid IPv{version} address {requested!r}")
        if address not in self.subnet:
            raise InvalidRequest(
                f"no configured subnet or ip-range contain the IP address {address}"
            )
        number = int(address)
        if number in self._taken or not self._lowest <= number <= self._highest:
            raise NotAuthorized("Address already in use")
        self._taken.add(int(address))
        return address

    def _advance(self) -> None:
        self._next = self._first if self._next >= self._last else self._next + 1

    def usage(self) -> AddressUsage:
        """Count the addresses that are in use, and those that can be allocated."""
        unusable = self.subnet.num_addresses - (self._highest - self._lowest + 1)
        allocated = sum(self._first <= number <= self._last for number in self._taken)
        available = self._last - self._first + 1 - allocated
        return AddressUsage(
            min(unusable + len(self._taken), _MAX_COUNT), min(available, _MAX_COUNT)
        )

    def release(self, address: str) -> None:
        """Release an address. Releasing a free address is not an error."""
        number = int(ip_address(address))
        if number not in self._reserved:
            self._taken.discard(number)


SUBNET_PREFIX, SUBNET_PREFIX6 = 20, 64
"""Default prefix length of a pool's subnets. A bridge has 1024 ports at most (BR_MAX_PORTS)."""

_S = TypeVar("_S", IPv4Network, IPv6Network)


class AddressPool(NamedTuple):
    """The subnets of ``base`` with prefix length ``size``."""

    base: IPv4Network | IPv6Network
    size: int

    def __str__(self) -> str:
        return f"{self.base} in subnets of /{self.size}"


def address_pool(base: str, size: int | None = None) -> AddressPool:
    """Return a validated pool.

    :raises InvalidRequest: when no subnet of that size fits.
    """
    try:
        network = ip_network(base)
    except ValueError as exc:
        raise InvalidRequest(f"invalid address pool {base!r}: {exc}") from exc
    default_size, max_size = (SUBNET_PREFIX, 30) if network.version == 4 else (SUBNET_PREFIX6, 125)
    if size is None:
        size = max(default_size, network.prefixlen)
    if not max(network.prefixlen, 8) <= size <= max_size:
        raise InvalidRequest(
            f"invalid address pool {base}: no subnets of /{size} fit in it",
            hint=f"the size must be from {max(network.prefixlen, 8)} to {max_size}",
        )
    return AddressPool(network, size)


def parse_pools(text: str) -> tuple[AddressPool, ...]:
    """Parse a comma-separated list of ``NETWORK[@SIZE]``.

    :raises InvalidRequest: when an entry is malformed.
    """
    result = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        base, at, size = part.partition("@")
        if at and not (size.isascii() and size.isdigit()):
            raise InvalidRequest(f"invalid address pool {part!r}", hint="write NETWORK@SIZE")
        result.append(address_pool(base, int(size) if at else None))
    return tuple(result)


def choose_subnet(pools: Iterable[AddressPool], taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return the first IPv4 subnet of the pools that overlaps no network in ``taken``.

    ``taken`` includes the host's routes; a default route is ignored.

    :raises JaulaError: when every subnet is taken.
    """
    return _first_of([p for p in pools if isinstance(p.base, IPv4Network)], IPv4Network, taken)


def choose_subnet6(
    pools: Iterable[AddressPool], taken: Iterable[IPv6Network]
) -> IPv6Network | None:
    """Return the first free IPv6 subnet, or None if no pool is an IPv6 pool.

    :raises JaulaError: when every subnet is taken.
    """
    usable = [pool for pool in pools if isinstance(pool.base, IPv6Network)]
    return _first_of(usable, IPv6Network, taken) if usable else None


def _first_of(pools: list[AddressPool], kind: type[_S], taken: Iterable[_S]) -> _S:
    taken_networks = [network for network in taken if network.prefixlen > 0]
    for pool in pools:
        assert isinstance(pool.base, kind)
        result = _first_free(pool.base, pool.size, taken_networks)
        if result is not None:
            return result
    raise _exhausted(pools)


def _first_free(base: _S, size: int, taken_networks: list[_S]) -> _S | None:
    """Return the first free subnet. The search skips each overlapping network in one step."""
    step = 1 << (base.max_prefixlen - size)
    number, last = int(base.network_address), int(base.broadcast_address)
    while number <= last:
        subnet = type(base)((number, size))
        clash = next((other for other in taken_networks if subnet.overlaps(other)), None)
        if clash is None:
            return subnet
        number = -(-(int(clash.broadcast_address) + 1) // step) * step
    return None


def _exhausted(pools: list[AddressPool]) -> JaulaError:
    return JaulaError(
        f"no free subnet in {', '.join(map(str, pools)) or 'an empty pool'}: each overlaps a"
        " network or a route of this host",
        hint="remove unused networks (network prune), name one with --subnet, or add to"
        " default-address-pools (--address-pool)",
    )


class IpamPlan(msgspec.Struct, frozen=True):
    """The IPv4 address configuration of a network that has IPv4.

    ``fixed`` is the subnet; without it, the first free subnet of ``pools`` is used. ``ip_range``
    and ``reserved`` are those of :class:`Addresses`.
    """

    fixed: IPv4Network | None = None
    pools: tuple[AddressPool, ...] = ()
    gateway: IPv4Address | None = None
    ip_range: IPv4Network | None = None
    reserved: tuple[IPv4Address, ...] = ()

    def choose(self, taken: Iterable[IPv4Network]) -> IPv4Network:
        """Return the subnet.

        :raises JaulaError: when every subnet of the pools is taken.
        """
        return self.fixed or choose_subnet(self.pools, taken)

    def addresses(self, subnet: IPv4Network) -> Addresses:
        """Return the addresses of the subnet that containers may get."""
        return Addresses(subnet, self.gateway, ip_range=self.ip_range, reserved=self.reserved)
