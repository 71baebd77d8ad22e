"""What addresses a network is to have: asked for, or from the pools. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

import msgspec

from jaula.network.ipam.addresses import Addresses
from jaula.network.ipam.pools import AddressPool, choose_subnet


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
