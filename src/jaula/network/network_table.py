"""The table of an engine's networks, by name: create, look up and remove.

Not thread safe: the caller holds the manager's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network

from jaula.errors import Conflict, JaulaError, NotAuthorized, NotFound
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.network import host_routes, network_config
from jaula.network.drivers.bridge import Bridge, BridgeNetwork, BridgePlan
from jaula.network.drivers.macvlan import MacvlanNetwork
from jaula.network.drivers.parent_interface import ParentInterface
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.antispoof import AntiSpoof
from jaula.network.firewall.bridge_rules import Limits
from jaula.network.firewall.egress_rules import EgressFirewall
from jaula.network.firewall.listen_rules import ListenFirewall
from jaula.network.firewall.nft_command import LoadMissing, Nft
from jaula.network.ipam import AddressPool, Subnet
from jaula.network.network_driver import Network, OnRepair
from jaula.network.owner import LinkOwner
from jaula.spec.endpoint_record import Endpoint
from jaula.spec.network_record import PARENT_DRIVERS, NetworkRecord

BRIDGE = "bridge"
"""Name of the default network."""


class Networks:
    """The networks by name. The default bridge network is created at its first use.

    ``owner`` marks the links of this engine.

    ``plan`` and ``limits`` are those of the default network. Subnets that the user did not choose
    come from ``pools``. ``nft`` returns the nftables interface.

    ``kept_tables`` is the output of ``nft list tables`` while tables of a former engine must stay
    as they are, and '' otherwise.
    """

    def __init__(
        self,
        pools: tuple[AddressPool, ...],
        plan: BridgePlan,
        limits: Limits,
        nft: Callable[[], Nft],
        owner: LinkOwner | None,
        on_repair: OnRepair,
        load_missing: LoadMissing,
    ) -> None:
        self._owner = owner
        self._on_repair = on_repair
        self._load_missing = load_missing
        self._pools = pools
        self._plan = plan
        self._limits = limits
        self._nft = nft
        self._by_name: dict[str, Network] = {}
        self.kept_tables = ""
        self.antispoof = AntiSpoof(plan.name, nft, self._ports, self._get_kept_tables, load_missing)
        self.egress = EgressFirewall(plan.name, nft, self._ports, load_missing)
        self.lists = (self.egress, ListenFirewall(plan.name, nft, self._ports, load_missing))

    def _get_kept_tables(self) -> str:
        return self.kept_tables

    def _ports(self) -> Iterator[Endpoint]:
        return (endpoint for s in self.bridge_networks() for endpoint in s.endpoints.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Network]:
        return iter(tuple(self._by_name.values()))

    def bridge_networks(self) -> list[BridgeNetwork]:
        """Return the networks of the bridge driver."""
        return [s for s in self if isinstance(s, BridgeNetwork)]

    def macvlan_networks(self, parent: str) -> list[MacvlanNetwork]:
        """Return the macvlan and ipvlan networks on one parent interface."""
        return [s for s in self if isinstance(s, MacvlanNetwork) and s.name == parent]

    def get(self, name: str) -> Network | None:
        """Return the network of a name, or None."""
        return self._by_name.get(name)

    def find(self, name: str) -> Network:
        """Return the network of a name.

        :raises NotFound: when no network of that name is defined.
        """
        result = self._by_name.get(name)
        if result is None:
            if name != BRIDGE:
                raise NotFound(f"network {name} not found")
            result = BridgeNetwork(
                BRIDGE,
                Bridge(self._plan, self._used_subnets, self._owner),
                self._nft(),
                self.antispoof,
                self.lists,
                self._get_kept_tables,
                self._load_missing,
                limits=self._limits,
                addresses6=self._plan.addresses6(),
                on_repair=self._on_repair,
            )
            self._by_name[BRIDGE] = result
        return result

    def define(self, network: NetworkRecord) -> NetworkRecord:
        """Create a user-defined network. Return its record with the subnets that it got.

        :raises Conflict: when a network of that name is defined.
        """
        if network.name in self._by_name:
            raise Conflict(f"network with name {network.name} already exists")
        if network.ipv6 and network.ipv6_pool is None:
            network = network_config.add_ipv6_subnet(network, self._pools, self._used_subnets6())
        net = self._new(network)
        try:
            net.ensure()
        except BaseException:
            net.close()
            raise
        self._by_name[network.name] = net
        return network_config.with_subnet(network, net.addresses)

    def expect(self, network: NetworkRecord) -> None:
        """Define a former engine's network whose parent is absent; its first use sets it up."""
        if network.driver in PARENT_DRIVERS and network.name not in self._by_name:
            self._by_name[network.name] = self._new(network)

    def _new(self, network: NetworkRecord) -> Network:
        addresses6 = network_config.addresses6(network)
        if network.driver in PARENT_DRIVERS:
            self._check_parent(network)
            return MacvlanNetwork(
                network.name,
                ParentInterface(network_config.parent_plan(network), self._owner),
                network_config.address_plan(network, self._pools),
                self._used_subnets,
                internal=network.internal,
                addresses6=addresses6,
                on_repair=self._on_repair,
            )
        return BridgeNetwork(
            network.name,
            Bridge(
                network_config.bridge_plan(network, self._pools, self._plan.port_group),
                self._used_subnets,
                self._owner,
            ),
            self._nft(),
            self.antispoof,
            self.lists,
            self._get_kept_tables,
            self._load_missing,
            limits=network_config.limits(network, past_firewall=self._limits.past_firewall),
            addresses6=addresses6,
            on_repair=self._on_repair,
        )

    def _check_parent(self, network: NetworkRecord) -> None:
        """Refuse to share a parent in passthru mode, which is exclusive (Docker's words)."""
        for other in self.macvlan_networks(network.parent):
            modes = {other.network: other.parent.plan.mode, network.name: network.mode}
            for name, mode in modes.items():
                if mode == "passthru":
                    raise NotAuthorized(
                        f"cannot use mode passthru of network {name}: macvlan network"
                        f" {other.network} is already using parent interface {network.parent}"
                    )

    def owns_parent(self, parent: str) -> bool:
        """Return whether jaula creates this parent interface or created it for another network."""
        return any(s.parent.plan.owned for s in self.macvlan_networks(parent)) or not has_interface(
            parent
        )

    def undefine(self, name: str) -> None:
        """Remove a user-defined network without endpoints. A shared parent interface stays.

        :raises Conflict: when the network has endpoints.
        """
        net = self._by_name.get(name)
        if net is None or name == BRIDGE:
            return
        if net.endpoints:
            raise Conflict(f"network {name} has active endpoints")
        shared = isinstance(net, MacvlanNetwork) and len(self.macvlan_networks(net.name)) > 1
        if not shared:
            net.take_down()
        net.close()
        del self._by_name[name]

    def clear(self, network: NetworkRecord) -> None:
        """Remove what an interrupted creation or removal left of a network."""
        if network.driver in PARENT_DRIVERS:
            if not self.macvlan_networks(network.parent):
                parent = ParentInterface(network_config.parent_plan(network), self._owner)
                try:
                    parent.remove()
                except OSError as exc:
                    raise JaulaError(f"cannot remove {network.parent}: {exc.strerror}") from exc
                finally:
                    parent.close()
            return
        bridge = Bridge(BridgePlan(network.bridge), owner=self._owner)
        try:
            if bridge.is_foreign():
                return
            self._nft().run(bridge_rules.delete(network.bridge, ipv6=True))
            bridge.delete_bridge()
        finally:
            bridge.close()

    def take_down(self, *, idle_only: bool) -> bool:
        """Remove every network from the host, with ``idle_only`` only networks without endpoints.

        Return whether all are removed.
        """
        for net in self:
            used = bool(net.endpoints)
            if isinstance(net, MacvlanNetwork):
                used = any(other.endpoints for other in self.macvlan_networks(net.name))
            if not (idle_only and used):
                net.take_down()
        gone = not any(net.is_up for net in self)
        default = self._by_name.get(BRIDGE)
        foreign = isinstance(default, BridgeNetwork) and default.bridge.is_foreign()
        if gone and not foreign:
            self.antispoof.remove()
        return gone

    def subnets(self) -> list[Subnet]:
        """Return the IPv4 and IPv6 subnets of all networks that are set up."""
        result: list[Subnet] = []
        for net in self:
            result += [a.subnet for a in (net.addresses, net.addresses6) if a]
        return result

    def _used_subnets(self) -> list[IPv4Network]:
        return [subnet for subnet in self.subnets() if isinstance(subnet, IPv4Network)]

    def _used_subnets6(self) -> list[IPv6Network]:
        with Rtnetlink() as links:
            host = host_routes.ipv6_networks(links)
        return [*host, *(s for s in self.subnets() if isinstance(s, IPv6Network))]

    def close(self) -> None:
        """Close the sockets; what is set up on the host stays."""
        for net in self:
            net.close()
        self._by_name.clear()
        self.antispoof.close()


def has_interface(name: str) -> bool:
    """Return whether the host has an interface of that name."""
    with Rtnetlink() as links:
        return links.link(name) is not None
