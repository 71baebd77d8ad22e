"""One bridge with its addresses, its endpoints and its tables of the firewall.

Not thread safe: the manager's lock is held by whoever calls. Raises ``OSError`` and ``JaulaError``
as the kernel and the firewall give them; on failure of :meth:`connect` nothing is left.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network

from jaula.errors import InvalidRequest, JaulaError
from jaula.network import firewall
from jaula.network.addresses import Addresses, mac_of
from jaula.network.bridge import PORT_PREFIX, Bridge
from jaula.network.firewall import OPEN, Limits
from jaula.network.nftables import FirewallError, Nft
from jaula.spec.endpoint import Endpoint, PublishedPort


class Segment:
    """One network on this host. ``endpoints`` are by container."""

    def __init__(
        self,
        network: str,
        bridge: Bridge,
        nft: Nft,
        *,
        limits: Limits = OPEN,
        addresses6: Addresses | None = None,
    ) -> None:
        self.network = network
        self.bridge = bridge
        self.addresses: Addresses | None = None
        self.addresses6 = addresses6
        self.endpoints: dict[str, Endpoint] = {}
        self.told: list[str] = []
        self._nft = nft
        self._limits = limits
        self._guards_ports = True

    @property
    def name(self) -> str:
        """The bridge's."""
        return self.bridge.name

    def ensure(self) -> Addresses:
        """Make bridge and firewall if they are not there; cheap when they are."""
        if self.addresses is None:
            try:
                addresses, told = self.bridge.set_up()
            except OSError as exc:
                raise JaulaError(f"cannot set up the bridge {self.name}: {exc}") from exc
            self.told += told
            self.load_firewall(addresses)
            self.addresses = addresses
        return self.addresses

    def load_firewall(self, addresses: Addresses) -> None:
        """Put the tables in place, whole, whatever is there now."""
        rows = list(self.endpoints.values())
        subnet = addresses.subnet
        assert isinstance(subnet, IPv4Network)
        text = firewall.ruleset(self.name, subnet, rows, self._limits)
        if self.addresses6 is not None:
            subnet6 = self.addresses6.subnet
            assert isinstance(subnet6, IPv6Network)
            text += firewall.ruleset6(self.name, subnet6, self._limits)
        self._nft.run(text)
        if not self._guards_ports:
            return
        ipv6 = self.addresses6 is not None
        try:
            self._nft.run(firewall.bridge_ruleset(self.name, rows, self._limits, ipv6=ipv6))
        except FirewallError as exc:
            if not self._limits.icc:
                raise
            self._guards_ports = False
            self.told.append(
                f"containers on {self.name} can use each other's addresses: {exc.message}"
            )

    def connect(
        self,
        container_id: str,
        container_name: str,
        netns_fd: int,
        *,
        ip: str | None = None,
        ip6: str | None = None,
        mac: str | None = None,
        interface: str = "eth0",
        default_route: bool = True,
        names: tuple[str, ...] = (),
    ) -> Endpoint:
        """Give a namespace an interface on this bridge."""
        addresses = self.ensure()
        if ip6 and self.addresses6 is None:
            raise InvalidRequest(f"network {self.network} has no IPv6 for the address {ip6}")
        address = addresses.allocate(ip or None)
        own6 = ""
        try:
            if self.addresses6 is not None:
                own6 = str(self.addresses6.allocate(ip6 or None))
        except JaulaError:
            addresses.release(str(address))
            raise
        endpoint_id = os.urandom(32).hex()
        inside = self._limits.internal
        endpoint = Endpoint(
            self.network,
            endpoint_id,
            container_id,
            container_name or container_id[:12],
            str(address),
            addresses.subnet.prefixlen,
            "" if inside else str(addresses.gateway),
            mac or mac_of(address),
            f"{PORT_PREFIX}{endpoint_id[:10]}",
            interface,
            ipv6=own6,
            prefix6=self.addresses6.subnet.prefixlen if self.addresses6 else 0,
            gateway6=str(self.addresses6.gateway) if self.addresses6 and not inside else "",
            names=names,
            internal=inside,
        )
        try:
            self.bridge.connect(endpoint, netns_fd, default_route=default_route)
            if self._guards_ports:
                self._add(firewall.admit(self.name, endpoint, verb="add"), addresses)
        except (OSError, JaulaError) as exc:
            self.bridge.delete(endpoint.host_interface)
            self._release(endpoint)
            if isinstance(exc, JaulaError):
                raise
            raise JaulaError(
                f"failed to set up network {self.network} for {endpoint.container_name}: {exc}"
            ) from exc
        self.endpoints[container_id] = endpoint
        return endpoint

    def disconnect(self, endpoint: Endpoint) -> None:
        """Take back address and right to speak; its ports were taken back before."""
        del self.endpoints[endpoint.container_id]
        if self.addresses is not None:
            if self._guards_ports:
                element = firewall.admit(self.name, endpoint, verb="delete")
                self._delete(element, self.addresses)
            self._release(endpoint)

    def adopt(self, endpoint: Endpoint) -> None:
        """Hold the addresses of an endpoint that a former engine has made."""
        addresses = self.ensure()
        addresses.allocate(endpoint.ipv4)
        if endpoint.ipv6 and self.addresses6 is not None:
            try:
                self.addresses6.allocate(endpoint.ipv6)
            except JaulaError:
                addresses.release(endpoint.ipv4)
                raise

    def _release(self, endpoint: Endpoint) -> None:
        if self.addresses is not None:
            self.addresses.release(endpoint.ipv4)
        if self.addresses6 is not None and endpoint.ipv6:
            self.addresses6.release(endpoint.ipv6)

    def publish(self, endpoint: Endpoint, ports: list[PublishedPort], *, verb: str) -> None:
        """Tell the firewall of published ports (``verb`` 'add') or take them away ('delete')."""
        elements = firewall.publish(self.name, endpoint, ports, verb=verb)
        if verb == "add":
            self._add(elements, self.ensure())
        elif self.addresses is not None:
            self._delete(elements, self.addresses)

    def is_missing(self, listing: str) -> bool:
        """Whether tables that should be there are not in the output of ``nft list tables``."""
        ipv6 = self.addresses6 is not None
        return self.addresses is not None and firewall.missing(
            listing, self.name, self._guards_ports, ipv6
        )

    def sweep(self) -> list[str]:
        """Remove ports of the bridge that belong to no endpoint; their names."""
        kept: Collection[str] = {endpoint.host_interface for endpoint in self.endpoints.values()}
        return [name for name in self.bridge.strays(kept) if self.bridge.delete(name)]

    def take_down(self) -> None:
        """Remove firewall and bridge."""
        ipv6 = self.addresses6 is not None
        self._nft.run(firewall.delete(self.name, bridge_family=self._guards_ports, ipv6=ipv6))
        self.bridge.delete_bridge()
        self.addresses = None

    def _add(self, elements: str, addresses: Addresses) -> None:
        """Add elements; if the tables are gone, load them again first."""
        try:
            self._nft.run(elements)
        except FirewallError:
            self.load_firewall(addresses)
            self._nft.run(elements)

    def _delete(self, elements: str, addresses: Addresses) -> None:
        """Take elements away; if they or the tables are not there, load what should be."""
        try:
            self._nft.run(elements)
        except FirewallError:
            self.load_firewall(addresses)
