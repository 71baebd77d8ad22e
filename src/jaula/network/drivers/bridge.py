"""A network on a bridge of the host, with its tables of the firewall."""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv4Network, IPv6Network

import msgspec

from jaula.errors import JaulaError
from jaula.network.bridge import Bridge
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.antispoof import AntiSpoof
from jaula.network.firewall.bridge_rules import OPEN, Limits
from jaula.network.firewall.nftables import FirewallError, Nft
from jaula.network.ipam.addresses import Addresses
from jaula.network.network import Network
from jaula.network.ports import rules
from jaula.spec.endpoint import Endpoint, PublishedPort


class BridgeNetwork(Network):
    """One bridge with its addresses, its endpoints and its tables."""

    publishes = True

    def __init__(
        self,
        network: str,
        bridge: Bridge,
        nft: Nft,
        guard: AntiSpoof,
        kept: Callable[[], str],
        *,
        limits: Limits = OPEN,
        addresses6: Addresses | None = None,
    ) -> None:
        super().__init__(network, internal=limits.internal, addresses6=addresses6)
        self.bridge = bridge
        self._nft = nft
        self._guard = guard
        self._kept = kept
        self._limits = limits

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
            self._guard.ensure()
            if bridge_rules.tables_missing(self._kept(), self.name, self.addresses6 is not None):
                self._load(addresses)
            self.addresses = addresses
        return self.addresses

    def load_firewall(self) -> None:
        """Put the tables in place, whole, whatever is there now."""
        self._load(self.ensure())

    def _load(self, addresses: Addresses) -> None:
        try:
            self._nft.run(self._text(addresses))
        except FirewallError as exc:
            if self._limits.past_firewall or not self._limits.hands_over:
                raise
            self._limits = msgspec.structs.replace(self._limits, hands_over=False)
            self._nft.run(self._text(addresses))
            self.told.append(
                f"published ports of {self.name} are reached from this host only, since this kernel"
                f" cannot show packets to the host's input rules first: {exc.message};"
                " --publish-past-firewall publishes without them"
            )

    def _text(self, addresses: Addresses) -> str:
        rows = list(self.endpoints.values())
        subnet = addresses.subnet
        assert isinstance(subnet, IPv4Network)
        text = bridge_rules.ruleset(self.name, subnet, rows, self._limits)
        if self.addresses6 is not None:
            subnet6 = self.addresses6.subnet
            assert isinstance(subnet6, IPv6Network)
            text += bridge_rules.ruleset6(self.name, subnet6, self._limits, rows)
        return text

    def _link(self, endpoint: Endpoint, netns_fd: int, *, default_route: bool) -> Endpoint:
        try:
            self.bridge.connect(endpoint, netns_fd, default_route=default_route)
            if self._guard.admit(endpoint):
                self.load_firewall()
        except (OSError, JaulaError):
            self.bridge.delete(endpoint.host_interface)
            raise
        return endpoint

    def _dismiss(self, endpoint: Endpoint) -> None:
        if self._guard.dismiss(endpoint):
            self.load_firewall()

    def delete_interface(self, endpoint: Endpoint, netns_fd: int | None) -> None:
        """Remove both ends of the link."""
        self.bridge.delete(endpoint.host_interface)

    def publish(self, endpoint: Endpoint, ports: list[PublishedPort], *, verb: str) -> None:
        """Tell the firewall of published ports (``verb`` 'add') or take them away ('delete')."""
        table = bridge_rules.table_name(self.name)
        elements = rules.port_elements(table, endpoint, ports, verb=verb)
        if verb == "add":
            self.ensure()
            self._add(elements)
        elif self.addresses is not None:
            self._delete(elements)

    def is_missing(self, listing: str) -> bool:
        """Whether tables that should be there are not in the output of ``nft list tables``."""
        ipv6 = self.addresses6 is not None
        return self.addresses is not None and bridge_rules.tables_missing(listing, self.name, ipv6)

    def sweep(self) -> list[str]:
        """Remove ports of the bridge that belong to no endpoint; their names."""
        kept: Collection[str] = {endpoint.host_interface for endpoint in self.endpoints.values()}
        return [name for name in self.bridge.strays(kept) if self.bridge.delete(name)]

    def take_down(self) -> None:
        """Remove firewall and bridge."""
        ipv6 = self.addresses6 is not None
        self._nft.run(bridge_rules.delete(self.name, ipv6=ipv6))
        self.bridge.delete_bridge()
        self.addresses = None

    def close(self) -> None:
        """Give up the bridge's socket."""
        self.bridge.close()

    def _add(self, elements: str) -> None:
        """Add elements; if the tables are gone, load them again first."""
        try:
            self._nft.run(elements)
        except FirewallError:
            self.load_firewall()
            self._nft.run(elements)

    def _delete(self, elements: str) -> None:
        """Take elements away; if they or the tables are not there, load what should be."""
        try:
            self._nft.run(elements)
        except FirewallError:
            self.load_firewall()
