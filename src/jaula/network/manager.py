"""The networks of one engine: their endpoints, their published ports and the clean-up of both.

Clients see what Docker's network drivers show. All methods are synchronous. An attach takes about
1.5 ms. One lock serialises every call, so any thread may call. The sockets inside belong to the
network namespace of the thread that makes the first call.

:meth:`NetworkManager.detach` does not delete the container's interface. The kernel deletes it with
the network namespace, which saves 16 ms of waiting for RCU. Until then the anti-spoofing rules drop
everything that the interface sends.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence

import msgspec

from jaula.config import EngineConfig, Paths
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound
from jaula.kernel.rtnetlink import mac_bytes
from jaula.network import endpoint_config
from jaula.network.drivers.bridge import BridgeNetwork
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.bridge_rules import Limits
from jaula.network.firewall.egress_rules import Refused
from jaula.network.firewall.nft_command import FirewallMonitor, Nft, hold_descriptors, open_nft
from jaula.network.ipam import Addresses, AddressUsage, Subnet, parse_pools
from jaula.network.network_config import default_bridge_plan
from jaula.network.network_driver import EndpointRequest, OnRepair, no_report
from jaula.network.network_table import BRIDGE, Networks, has_interface
from jaula.network.owner import LinkOwner
from jaula.network.port_mapper import PortBinder, PortMapper, PortRequest
from jaula.spec.endpoint_record import Endpoint, Gateways, PublishedPort
from jaula.spec.network_record import NetworkRecord


class NetworkManager:
    """All networks of one engine, including the default bridge network."""

    def __init__(
        self,
        paths: Paths,
        config: EngineConfig,
        *,
        binder: PortBinder | None = None,
        owner: LinkOwner | None = None,
    ) -> None:
        """Initialise the table of networks; nothing on the host changes yet.

        :param binder: binds host ports if this process is not in the host's network namespace.
        :param owner: marks the links of this engine.
        :raises InvalidRequest: when an address pool or a setting of the default bridge is invalid.
        """
        hold_descriptors()
        pools = parse_pools(config.address_pool)
        plan = default_bridge_plan(config, pools)
        self._bridge = plan.name
        self._lock = threading.RLock()
        self._nft: Nft | None = None
        self._networks = Networks(
            pools,
            plan,
            Limits(past_firewall=config.publish_past_firewall),
            self._open_nft,
            owner,
            self._report,
            self._load_missing,
        )
        self.on_repair: OnRepair = no_report
        self._port_mapper = PortMapper(binder)
        self._monitor: FirewallMonitor | None = None
        self._unchecked = False  # a table was deleted since the last check of all

    def _report(self, kind: str, name: str) -> None:
        self.on_repair(kind, name)

    # -- networks ----------------------------------------------------------------------------

    def ensure(self, network: str = BRIDGE) -> Addresses:
        """Set up a network on the host unless it is set up already, and return its addresses.

        They are those of IPv4 if it has both families. Cheap if the network is set up already.

        :raises NotFound: when no network of that name is defined.
        :raises Conflict: when the network has no addresses.
        """
        with self._lock:
            found = self._networks.find(network)
            found.ensure()
            addresses = found.addresses or found.addresses6
            if addresses is None:
                raise Conflict(f"network {network} has neither IPv4 nor IPv6 addresses")
            return addresses

    def address_usage(self, network: str) -> dict[str, AddressUsage]:
        """Return the usage of a network's addresses by subnet.

        It is empty for a network that could not be set up, and has no subnet of IPv4 before a
        subnet is chosen.
        """
        with self._lock:
            found = self._networks.get(network)
            if found is None:
                return {}
            return {str(a.subnet): a.usage() for a in (found.addresses, found.addresses6) if a}

    def addresses6(self, network: str = BRIDGE) -> Addresses | None:
        """Return the IPv6 addresses of a network, or None if it has no IPv6."""
        with self._lock:
            return self._networks.find(network).addresses6

    def define(self, network: NetworkRecord) -> NetworkRecord:
        """Create a user-defined network. Return its record with the subnets that it got.

        Nothing is left on the host after a failure.

        :raises Conflict: when an interface with the bridge's name exists and is not a bridge.
        :raises JaulaError: when no subnet is free.
        """
        with self._lock:
            return self._networks.define(network)

    def expect(self, network: NetworkRecord) -> None:
        """Define a network without setting it up: its parent interface may appear later."""
        with self._lock:
            self._networks.expect(network)

    def undefine(self, name: str) -> None:
        """Remove a user-defined network.

        :raises Conflict: when the network has endpoints.
        """
        with self._lock:
            self._networks.undefine(name)

    def clear(self, network: NetworkRecord) -> None:
        """Remove what an interrupted creation or removal left of a network."""
        with self._lock:
            self._networks.clear(network)

    def owns_parent(self, parent: str) -> bool:
        """Return whether jaula creates this parent interface or created it for another network."""
        with self._lock:
            return self._networks.owns_parent(parent)

    def has_interface(self, name: str) -> bool:
        """Return whether the host has an interface of that name."""
        return has_interface(name)

    def subnets(self) -> list[Subnet]:
        """Return the subnets of all networks that are set up."""
        with self._lock:
            return self._networks.subnets()

    def _open_nft(self) -> Nft:
        if self._nft is None:
            self._nft = open_nft()
        return self._nft

    def unload_nft(self) -> None:
        """Unload the firewall's library until it is used again, unless it is in use."""
        if self._lock.acquire(blocking=False):
            try:
                if self._nft is not None:
                    self._nft.close()
            finally:
                self._lock.release()

    def warnings(self) -> tuple[str, ...]:
        """Return warnings for the operator: changed host settings and blocking firewalls."""
        with self._lock:
            listing = self._open_nft().run("list chains", json=True)
            own_bridges = [net.name for net in self._networks.bridge_networks()] or [self._bridge]
            return (
                *self._port_mapper.warnings,
                *self._networks.antispoof.warnings,
                *(line for net in self._networks for line in net.warnings),
                *(
                    f"the firewall chain {chain} has policy drop: accept {own_bridges[0]}"
                    " in it, or containers cannot reach other hosts"
                    for chain in bridge_rules.foreign_drops(listing, *own_bridges)
                ),
            )

    # -- containers ------------------------------------------------------------------------

    def attach(
        self,
        network: str,
        container_id: str,
        netns_fd: int,
        *,
        ip: str | None = None,
        ip6: str | None = None,
        mac: str | None = None,
        container_name: str = "",
        interface: str = "eth0",
        default_route: bool = True,
        names: tuple[str, ...] = (),
        links: dict[str, str] | None = None,
        egress: tuple[str, ...] | None = None,
        listen: tuple[str, ...] | None = None,
        carrier: bool = True,
    ) -> Endpoint:
        """Create an interface on the network in a network namespace, with addresses and routes.

        Also sets the namespace's loopback interface up. Nothing is left after a failure.
        ``egress`` are the allowed destinations (:mod:`jaula.spec.egress`) and ``listen`` the ports
        at which it may be reached (:mod:`jaula.spec.listen`), None for any. Without ``carrier`` no
        packet arrives until the caller sets the host's interface up.

        :raises InvalidRequest: when the MAC or IP address is malformed or outside the subnet, or
            the network cannot enforce a list.
        :raises NotAuthorized: when the IP address is in use, or the container has an endpoint in
            the network (Docker's status).
        :raises NotFound: when no network of that name is defined.
        """
        if mac is not None:
            try:
                mac_bytes(mac)
            except ValueError as exc:
                raise InvalidRequest(f"invalid MAC address {mac!r}") from exc
        with self._lock:
            net = self._networks.find(network)
            if container_id in net.endpoints:
                raise NotAuthorized(
                    f"endpoint with name {container_name or container_id[:12]} already exists in"
                    f" network {network}"
                )
            request = EndpointRequest(
                container_id,
                container_name,
                ip,
                ip6,
                mac,
                interface,
                default_route,
                names,
                links or {},
                egress,
                listen,
                carrier,
            )
            return net.connect(request, netns_fd)

    def addresses(self, network: str) -> tuple[Addresses | None, Addresses | None]:
        """Return the IPv4 and the IPv6 addresses of a network, which is set up for that.

        :raises NotFound: when no network of that name is defined.
        :raises JaulaError: when it cannot be set up.
        """
        with self._lock:
            net = self._networks.find(network)
            net.ensure()
            return net.addresses, net.addresses6

    def set_default_routes(self, gateways: Gateways, netns_fd: int, *, replace: bool) -> None:
        """Set a container's default routes; ``replace`` those that it has."""
        try:
            endpoint_config.set_default_routes(gateways, netns_fd, replace=replace)
        except OSError as exc:
            names = ", ".join(dict.fromkeys(e.network for e in gateways if e is not None))
            raise JaulaError(f"failed to set the default route by {names}: {exc}") from exc

    def detach(
        self,
        endpoint: Endpoint,
        *,
        delete_interface: bool = False,
        netns_fd: int | None = None,
    ) -> None:
        """Release the ports, addresses and firewall entries of an endpoint. Idempotent.

        The interface disappears with the container's namespace. ``delete_interface`` deletes it now
        (16 ms), for a container that keeps running. macvlan and ipvlan need ``netns_fd`` for that.
        """
        with self._lock:
            try:
                net = self._networks.find(endpoint.network)
            except NotFound:
                return  # an engine undoes a start of its predecessor before it sets networks up
            endpoint_now = net.endpoints.get(endpoint.container_id)
            if endpoint_now is not None and endpoint_now.endpoint_id == endpoint.endpoint_id:
                if endpoint_now.ports:
                    self.unpublish(endpoint.container_id)
                net.disconnect(endpoint_now)
            if delete_interface:
                net.delete_interface(endpoint, netns_fd)

    def claim(
        self,
        endpoint: Endpoint,
        container_id: str,
        container_name: str,
        *,
        egress: tuple[str, ...] | None = None,
        listen: tuple[str, ...] | None = None,
    ) -> Endpoint:
        """Assign an endpoint that was created in advance to the container that will use it.

        No program runs in its namespace, so the lists are in effect before one can send.

        :raises Unsupported: when this kernel cannot enforce a list.
        :raises NotFound: when the endpoint is not attached.
        :raises Conflict: when the container has an endpoint in the network.
        """
        with self._lock:
            network = self._networks.find(endpoint.network)
            endpoints = network.endpoints
            endpoint_now = endpoints.get(endpoint.container_id)
            if (
                endpoint_now is None
                or endpoint_now.endpoint_id != endpoint.endpoint_id
                or endpoint_now.ports
            ):
                raise NotFound(f"endpoint {endpoint.endpoint_id[:12]} is not attached")
            if container_id in endpoints:
                raise Conflict(f"container {container_name} is already attached")
            claimed = msgspec.structs.replace(
                endpoint_now,
                container_id=container_id,
                container_name=container_name,
                egress=egress,
                listen=listen,
            )
            network.ensure()
            network.restrict(claimed)
            del endpoints[endpoint.container_id]
            endpoints[container_id] = claimed
            return claimed

    def rename(self, endpoint: Endpoint, container_name: str, names: tuple[str, ...]) -> Endpoint:
        """Record the new name of a container and its DNS names. Return the changed endpoint."""
        with self._lock:
            changed = msgspec.structs.replace(endpoint, container_name=container_name, names=names)
            self._networks.find(endpoint.network).endpoints[endpoint.container_id] = changed
            return changed

    def endpoint(self, container_id: str, network: str = BRIDGE) -> Endpoint | None:
        """Return the current endpoint of a container in a network, with its published ports."""
        with self._lock:
            net = self._networks.get(network)
            return net.endpoints.get(container_id) if net else None

    def endpoints(self, network: str | None = None) -> tuple[Endpoint, ...]:
        """Return the endpoints of one network, or of all networks."""
        with self._lock:
            return tuple(
                endpoint
                for net in self._networks
                if network in (None, net.network)
                for endpoint in net.endpoints.values()
            )

    # -- egress lists ------------------------------------------------------------------------

    def allow_name(self, container_id: str, name: str, addresses: dict[str, int]) -> None:
        """Allow a container to connect to the addresses of a name, if its egress list has it.

        ``addresses`` are those of an answer, each with its seconds.

        :raises JaulaError: when the firewall refuses.
        """
        with self._lock:
            for net in self._networks.bridge_networks():
                if (endpoint := net.endpoints.get(container_id)) is not None:
                    self._networks.egress.admit(endpoint, name, addresses)

    def egress_addresses(self, container_id: str, network: str) -> dict[str, dict[str, int]]:
        """Return the addresses of names that an egress list allows now, by set, with seconds."""
        with self._lock:
            net = self._networks.get(network)
            endpoint = net.endpoints.get(container_id) if net else None
            return self._networks.egress.names(endpoint) if endpoint is not None else {}

    def restore_egress(
        self, container_id: str, network: str, addresses: dict[str, dict[str, int]]
    ) -> None:
        """Allow the result of :meth:`egress_addresses` again, for an endpoint of the same list.

        :raises JaulaError: when the firewall refuses.
        """
        with self._lock:
            net = self._networks.get(network)
            endpoint = net.endpoints.get(container_id) if net else None
            if endpoint is not None:
                self._networks.egress.restore_names(endpoint, addresses)

    def refused_egress(self, container_id: str) -> list[Refused]:
        """Return the destinations that a container's egress list refused, most packets first."""
        with self._lock:
            return [
                row
                for net in self._networks.bridge_networks()
                if (endpoint := net.endpoints.get(container_id)) is not None
                for row in self._networks.egress.refused(endpoint)
            ]

    def refused_packets(self) -> dict[str, int]:
        """Return the packets that the egress list of each container refused."""
        counts: dict[str, int] = {}
        with self._lock:
            for net in self._networks.bridge_networks():
                packets = self._networks.egress.refused_packets(net.endpoints.values())
                for container_id, count in zip(net.endpoints, packets, strict=True):
                    counts[container_id] = counts.get(container_id, 0) + count
        return counts

    # -- published ports ---------------------------------------------------------------------

    def publish(
        self, target: Endpoint | Gateways, ports: Sequence[PortRequest]
    ) -> list[PublishedPort]:
        """Publish ports of a container on the host: all of them or none.

        :param target: the endpoint that traffic is forwarded to, or one for each address family.

        :meth:`endpoint` returns the record with the ports afterwards.

        :raises PortUnavailable: when a port is taken. The message is the part of Docker's that
            follows ``driver failed programming external connectivity on endpoint NAME (ID):``.
        :raises Conflict: when the network's driver cannot publish ports.
        """
        gateways = target if isinstance(target, Gateways) else Gateways(target, target)
        if not ports or not any(gateways):
            return []
        with self._lock:
            return self._port_mapper.publish(self._bridge_network, gateways, ports)

    def change_ports(
        self, gateways: Gateways, added: Sequence[PortRequest], removed: Collection[PublishedPort]
    ) -> list[PublishedPort]:
        """Change the published ports of a container: all or nothing. Return the new ones.

        :meth:`endpoint` returns the record with the ports afterwards.

        :raises PortUnavailable: when a port is taken.
        :raises Conflict: when the network's driver cannot publish ports.
        """
        with self._lock:
            return self._port_mapper.change(self._bridge_network, gateways, added, removed)

    def _bridge_network(self, name: str) -> BridgeNetwork:
        net = self._networks.find(name)
        if not isinstance(net, BridgeNetwork):
            raise Conflict(f"ports cannot be published in network {name}")
        return net

    def unpublish(self, container_id: str) -> None:
        """Release all published ports of a container."""
        with self._lock:
            self._port_mapper.unpublish(self._networks.bridge_networks(), container_id)

    # -- restore, repair and shutdown ----------------------------------------------------------

    def keep_firewall_rules(self) -> None:
        """Keep the firewall rules of a former engine until :meth:`restore`.

        Call this before the networks of the former engine are defined: running containers stay
        connected. :meth:`restore` replaces the rules, one transaction for each table.
        """
        with self._lock:
            self._networks.kept_tables = self._open_nft().run("list tables")

    def restore(self, endpoints: Iterable[Endpoint]) -> list[str]:
        """Adopt the endpoints of running containers from their records and load the firewall.

        For a new engine that has defined its networks, and after another program flushed the
        firewall. Return one line for each thing that cannot be restored, such as a port that
        another program has bound meanwhile.
        """
        problems = []
        adopted: dict[str, list[Endpoint]] = {}
        with self._lock:
            self.ensure()
            for endpoint in endpoints:
                try:
                    net = self._networks.find(endpoint.network)
                    if endpoint.container_id not in net.endpoints:
                        net.adopt(endpoint)
                except JaulaError as exc:
                    problems.append(f"{endpoint.container_name}: {exc.message}")
                    continue
                adopted.setdefault(endpoint.container_id, []).append(endpoint)
            for container_id, rows in adopted.items():
                try:
                    self._port_mapper.rebind(rows)
                except JaulaError as exc:
                    problems.append(f"{rows[0].container_name}: {exc.message}")
                    rows = [msgspec.structs.replace(row, ports=()) for row in rows]
                for row in rows:
                    self._networks.find(row.network).endpoints[container_id] = row
            self._port_mapper.release_others(self.endpoints())
            listing, self._networks.kept_tables = self._networks.kept_tables, ""
            for tables in self._networks.lists:
                try:
                    tables.restore(listing)
                except JaulaError as exc:
                    problems.append(f"{tables.subject}s: {exc.message}")
            self._networks.antispoof.load()
            for bridge in self._networks.bridge_networks():
                bridge.load_firewall()
                problems += bridge.attach_ports()
        return problems

    def watch(self) -> FirewallMonitor:
        """Return the firewall monitor. When it becomes readable, call :meth:`repair`."""
        with self._lock:
            if self._monitor is None:
                self._monitor = FirewallMonitor()
            return self._monitor

    def repair(self) -> bool:
        """Reload firewall tables that another program removed. Return whether any was missing.

        :raises JaulaError: when they cannot be loaded; call it again.
        """
        with self._lock:
            if not self._networks:
                return False
            self._unchecked = self.watch().table_deleted() or self._unchecked
            return self._unchecked and self._load_missing()

    def _load_missing(self) -> bool:
        """Load all missing tables, and report that. Return whether any was missing.

        A change of the rules calls it too, since it may meet a missing table before the monitor
        is read.
        """
        listing = self._open_nft().run("list tables")
        lists = [t for t in self._networks.lists if t.is_missing(listing)]
        bridges = [s for s in self._networks.bridge_networks() if s.is_missing(listing)]
        antispoof = self._networks.antispoof
        is_missing = antispoof.is_missing(listing) or bool(lists) or bool(bridges)
        for tables in lists:
            tables.load()
        if antispoof.is_missing(listing):
            antispoof.load()
        for net in bridges:
            net.load_firewall()
            for endpoint in net.endpoints.values():
                self._port_mapper.delete_udp_flows(endpoint.ports)  # tracked without translation
        self._unchecked = False
        if is_missing:
            self._report("firewall", "tables")
        return is_missing

    def sweep(self, live: Collection[str]) -> list[str]:
        """Remove what containers that are not in ``live`` left behind.

        Return the container ids and interface names that were removed.
        """
        removed = []
        with self._lock:
            for endpoint in self.endpoints():
                if endpoint.container_id not in live:
                    self.detach(endpoint)
                    removed.append(endpoint.container_id)
            self._networks.find(BRIDGE)
            for net in self._networks:
                removed += net.sweep()
        return removed

    def orphaned_ports(self) -> list[tuple[str, str]]:
        """Return (network, port) for each port of a bridge that belongs to no endpoint."""
        with self._lock:
            return [(net.network, port) for net in self._networks for port in net.orphaned_ports()]

    def delete_orphaned_port(self, network: str, port: str) -> None:
        """Delete a port of a network's bridge unless it belongs to an endpoint now."""
        with self._lock:
            net = self._networks.get(network)
            if net is not None and port in net.orphaned_ports():
                net.delete_port(port)

    def teardown(self, *, force: bool = False) -> bool:
        """Remove the networks without endpoints from the host, or with ``force`` all networks.

        Return whether all are removed. IP forwarding stays on, since other programs may need it
        now.
        """
        with self._lock:
            self._networks.find(BRIDGE)
            if force:
                for endpoint in self.endpoints():
                    self.detach(endpoint, delete_interface=True)
            return self._networks.take_down(idle_only=not force)

    def close(self) -> None:
        """Close the sockets. What is set up on the host stays, for the next engine to restore."""
        with self._lock:
            self._port_mapper.close()
            self._networks.close()
            if self._nft is not None:
                self._nft.close()
            if self._monitor is not None:
                self._monitor.close()
            self._nft = self._monitor = None
