"""All networks of one engine that are set up, by name: made, found, and taken away.

Not thread safe: the manager's lock is held by whoever calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network

from jaula.errors import Conflict, JaulaError, NotAuthorized, NotFound
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.network import config, host_routes
from jaula.network.drivers.bridge import Bridge, BridgeNetwork, BridgePlan
from jaula.network.drivers.macvlan import MacvlanNetwork
from jaula.network.drivers.parent_interface import ParentInterface
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.antispoof import AntiSpoof
from jaula.network.firewall.bridge_rules import Limits
from jaula.network.firewall.nftables import Nft
from jaula.network.ipam import AddressPool, Subnet
from jaula.network.network import Network
from jaula.spec.endpoint import Endpoint
from jaula.spec.network import PARENTED, NetworkRecord

BRIDGE = "bridge"
"""Name of the default network."""


class Networks:
    """The networks. ``plan`` and ``limits`` are the default one's, which is made when asked for.

    Subnets that nobody chose are taken from ``pools``; ``nft`` gives the firewall's commands.
    ``kept`` names tables of a former engine that are to stay as they are until they are loaded
    anew with all endpoints: the output of ``nft list tables``, or ''.
    """

    def __init__(
        self,
        pools: tuple[AddressPool, ...],
        plan: BridgePlan,
        limits: Limits,
        nft: Callable[[], Nft],
    ) -> None:
        self._pools = pools
        self._plan = plan
        self._limits = limits
        self._nft = nft
        self._by_name: dict[str, Network] = {}
        self.kept = ""
        self.guard = AntiSpoof(plan.name, nft, self._ports, self._are_kept)

    def _are_kept(self) -> str:
        return self.kept

    def _ports(self) -> Iterator[Endpoint]:
        return (endpoint for s in self.bridged() for endpoint in s.endpoints.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Network]:
        return iter(tuple(self._by_name.values()))

    def bridged(self) -> list[BridgeNetwork]:
        """Those on bridges."""
        return [s for s in self if isinstance(s, BridgeNetwork)]

    def parented(self, parent: str) -> list[MacvlanNetwork]:
        """Those that lie on an interface of the host."""
        return [s for s in self if isinstance(s, MacvlanNetwork) and s.name == parent]

    def get(self, name: str) -> Network | None:
        """The network of a name, if it is set up."""
        return self._by_name.get(name)

    def find(self, name: str) -> Network:
        """The network of a name; NotFound without one."""
        found = self._by_name.get(name)
        if found is None:
            if name != BRIDGE:
                raise NotFound(f"network {name} not found")
            found = BridgeNetwork(
                BRIDGE,
                Bridge(self._plan, self._promised),
                self._nft(),
                self.guard,
                self._are_kept,
                limits=self._limits,
                addresses6=self._plan.addresses6(),
            )
            self._by_name[BRIDGE] = found
        return found

    def define(self, network: NetworkRecord) -> NetworkRecord:
        """Make a user's network; the document with the subnets that it has now."""
        if network.name in self._by_name:
            raise Conflict(f"network with name {network.name} already exists")
        if network.ipv6 and network.ipv6_pool is None:
            network = config.add_ipv6_subnet(network, self._pools, self._taken6())
        segment = self._new(network)
        try:
            addresses = segment.ensure()
        except BaseException:
            segment.close()
            raise
        self._by_name[network.name] = segment
        return config.with_subnet(network, addresses)

    def expect(self, network: NetworkRecord) -> None:
        """Let a network of a former engine, whose parent is not there now, be set up when it is."""
        if network.driver in PARENTED and network.name not in self._by_name:
            self._by_name[network.name] = self._new(network)

    def _new(self, network: NetworkRecord) -> Network:
        addresses6 = config.addresses6(network)
        if network.driver in PARENTED:
            self._check_parent(network)
            return MacvlanNetwork(
                network.name,
                ParentInterface(config.parent_plan(network)),
                config.address_plan(network, self._pools),
                self._promised,
                internal=network.internal,
                addresses6=addresses6,
            )
        return BridgeNetwork(
            network.name,
            Bridge(config.bridge_plan(network, self._pools, self._plan.port_group), self._promised),
            self._nft(),
            self.guard,
            self._are_kept,
            limits=config.limits(network, past_firewall=self._limits.past_firewall),
            addresses6=addresses6,
        )

    def _check_parent(self, network: NetworkRecord) -> None:
        """The mode passthru has the parent for itself (Docker's words)."""
        for other in self.parented(network.parent):
            modes = {other.network: other.parent.plan.mode, network.name: network.mode}
            for name, mode in modes.items():
                if mode == "passthru":
                    raise NotAuthorized(
                        f"cannot use mode passthru of network {name}: macvlan network"
                        f" {other.network} is already using parent interface {network.parent}"
                    )

    def owns_parent(self, parent: str) -> bool:
        """Whether a parent has to be made for a network, or was made for another one."""
        return any(s.parent.plan.made for s in self.parented(parent)) or not has_interface(parent)

    def undefine(self, name: str) -> None:
        """Remove a user's network, which nobody is attached to. A parent stays for others."""
        segment = self._by_name.get(name)
        if segment is None or name == BRIDGE:
            return
        if segment.endpoints:
            raise Conflict(f"network {name} has active endpoints")
        shared = isinstance(segment, MacvlanNetwork) and len(self.parented(segment.name)) > 1
        if not shared:
            segment.take_down()
        segment.close()
        del self._by_name[name]

    def clear(self, network: NetworkRecord) -> None:
        """Remove what a creation or a removal that was cut off has left of a network."""
        if network.driver in PARENTED:
            if not self.parented(network.parent):
                parent = ParentInterface(config.parent_plan(network))
                try:
                    parent.remove()
                except OSError as exc:
                    raise JaulaError(f"cannot remove {network.parent}: {exc.strerror}") from exc
                finally:
                    parent.close()
            return
        bridge = Bridge(BridgePlan(network.bridge))
        try:
            self._nft().run(bridge_rules.delete(network.bridge, ipv6=True))
            bridge.delete_bridge()
        finally:
            bridge.close()

    def take_down(self, *, idle_only: bool) -> bool:
        """Remove what the host has of every network; whether nothing is left.

        With ``idle_only`` those stay that somebody is attached to.
        """
        for segment in self:
            used = bool(segment.endpoints)
            if isinstance(segment, MacvlanNetwork):
                used = any(other.endpoints for other in self.parented(segment.name))
            if not (idle_only and used):
                segment.take_down()
        gone = all(segment.addresses is None for segment in self)
        if gone:
            self.guard.remove()
        return gone

    def subnets(self) -> list[Subnet]:
        """Those of all networks that are set up."""
        found: list[Subnet] = []
        for segment in self:
            found += [a.subnet for a in (segment.addresses, segment.addresses6) if a]
        return found

    def _promised(self) -> list[IPv4Network]:
        return [subnet for subnet in self.subnets() if isinstance(subnet, IPv4Network)]

    def _taken6(self) -> list[IPv6Network]:
        with Rtnetlink() as links:
            host = host_routes.ipv6_networks(links)
        return [*host, *(s for s in self.subnets() if isinstance(s, IPv6Network))]

    def close(self) -> None:
        """Give up sockets; what was set up stays."""
        for segment in self:
            segment.close()
        self._by_name.clear()


def has_interface(name: str) -> bool:
    """Whether the host has an interface of that name."""
    with Rtnetlink() as links:
        return links.link(name) is not None
