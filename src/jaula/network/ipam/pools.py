"""The pools that subnets are taken from, and the one that a network gets. Pure.

Follows Docker's ``default-address-pools``: a pool is a network and the size of its subnets.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple, TypeVar

from jaula.errors import InvalidRequest, JaulaError

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
