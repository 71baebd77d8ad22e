"""The networks of one engine: endpoints, published ports, and their undoing.

Follows Docker's drivers in what a client can see. Synchronous; an attach takes about a
millisecond and a half. One lock, so any thread may call; the objects inside belong to the network
namespace of the thread that calls first.

A detach does not remove the container's interface: the kernel does when the namespace goes, and
16 ms of waiting for RCU are saved. Until then the firewall lets it say nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence

import msgspec

from jaula.config import EngineConfig, Paths
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound
from jaula.kernel.links import mac_bytes
from jaula.network.config import default_bridge_plan
from jaula.network.drivers.bridge import BridgeNetwork
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.bridge_rules import Limits
from jaula.network.firewall.nftables import FirewallMonitor, Nft, open_nft
from jaula.network.ipam import Addresses, Subnet, parse_pools
from jaula.network.network import EndpointRequest
from jaula.network.networks import BRIDGE, Networks, has_interface
from jaula.network.port_mapper import PortBinder, PortMapper, PortRequest
from jaula.spec.endpoint import Endpoint, PublishedPort
from jaula.spec.network import NetworkRecord


class NetworkManager:
    """All networks of one engine, the default one among them."""

    def __init__(
        self, paths: Paths, config: EngineConfig, *, binder: PortBinder | None = None
    ) -> None:
        """``binder`` takes ports where our own network namespace is not the host's."""
        pools = parse_pools(config.address_pool)
        plan = default_bridge_plan(config, pools)
        self._bridge = plan.name
        self._lock = threading.RLock()
        self._nft: Nft | None = None
        self._segments = Networks(
            pools,
            plan,
            Limits(past_firewall=config.publish_past_firewall),
            self._open,
        )
        self._publisher = PortMapper(binder)
        self._watch: FirewallMonitor | None = None

    # -- networks ----------------------------------------------------------------------------

    def ensure(self, network: str = BRIDGE) -> Addresses:
        """Make what the host has of a network if it is not there; cheap when it is.

        Raises ``NotFound`` for a network that was not defined.
        """
        with self._lock:
            return self._segments.find(network).ensure()

    def addresses6(self, network: str = BRIDGE) -> Addresses | None:
        """The IPv6 addresses of a network; None without IPv6."""
        with self._lock:
            return self._segments.find(network).addresses6

    def define(self, network: NetworkRecord) -> NetworkRecord:
        """Make a user's network; the document with the subnets that it has now.

        Raises ``Conflict`` if an interface of its bridge's name is there and no bridge, and
        ``JaulaError`` if no subnet is free. Nothing is left then.
        """
        with self._lock:
            return self._segments.define(network)

    def expect(self, network: NetworkRecord) -> None:
        """Keep a network that could not be set up, and lies on a link that may come later."""
        with self._lock:
            self._segments.expect(network)

    def undefine(self, name: str) -> None:
        """Remove a user's network; Conflict if somebody is attached to it."""
        with self._lock:
            self._segments.undefine(name)

    def clear(self, network: NetworkRecord) -> None:
        """Remove what a creation or a removal that was cut off has left of a network."""
        with self._lock:
            self._segments.clear(network)

    def owns_parent(self, parent: str) -> bool:
        """Whether a parent has to be made for a network, or was made for another one."""
        with self._lock:
            return self._segments.owns_parent(parent)

    def has_interface(self, name: str) -> bool:
        """Whether the host has an interface of that name."""
        return has_interface(name)

    def subnets(self) -> list[Subnet]:
        """Those of all networks that are set up."""
        with self._lock:
            return self._segments.subnets()

    def _open(self) -> Nft:
        if self._nft is None:
            self._nft = open_nft()
        return self._nft

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know: changed settings, and firewalls that cut containers off."""
        with self._lock:
            listing = self._open().run("list chains", json=True)
            own = [segment.name for segment in self._segments.bridged()] or [self._bridge]
            return (
                *self._publisher.told,
                *self._segments.guard.told,
                *(line for segment in self._segments for line in segment.told),
                *(
                    f"the firewall chain {chain} drops what it does not know: let {own[0]}"
                    " pass in it, or containers do not reach outside"
                    for chain in bridge_rules.foreign_drops(listing, *own)
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
    ) -> Endpoint:
        """Give the namespace an interface on the network's bridge, with addresses and routes.

        Also brings its loopback up. On failure nothing is left. Raises ``InvalidRequest`` or
        ``Conflict`` for a bad or used address, ``NotFound`` without such a network.
        """
        if mac is not None:
            try:
                mac_bytes(mac)
            except ValueError as exc:
                raise InvalidRequest(f"invalid MAC address {mac!r}") from exc
        with self._lock:
            segment = self._segments.find(network)
            if container_id in segment.endpoints:
                raise NotAuthorized(
                    f"endpoint with name {container_name or container_id[:12]} already exists in"
                    f" network {network}"
                )
            joining = EndpointRequest(
                container_id,
                container_name,
                ip,
                ip6,
                mac,
                interface,
                default_route,
                names,
                links or {},
            )
            return segment.connect(joining, netns_fd)

    def set_default_route(self, endpoint: Endpoint, netns_fd: int) -> None:
        """Make an interface of a container the one of its default routes, if it has none."""
        with self._lock:
            try:
                self._segments.find(endpoint.network).set_default_route(endpoint, netns_fd)
            except OSError as exc:
                raise JaulaError(
                    f"failed to route {endpoint.container_name} by {endpoint.network}: {exc}"
                ) from exc

    def detach(
        self,
        endpoint: Endpoint,
        *,
        delete_interface: bool = False,
        netns_fd: int | None = None,
    ) -> None:
        """Take back a container's ports, address and right to speak; twice is no error.

        The interface goes with the container's namespace. ``delete_interface`` removes it now,
        for a container that lives on (16 ms); some kinds of network need its namespace for that.
        """
        with self._lock:
            segment = self._segments.find(endpoint.network)
            known = segment.endpoints.get(endpoint.container_id)
            if known is not None and known.endpoint_id == endpoint.endpoint_id:
                if known.ports:
                    self.unpublish(endpoint.container_id)
                segment.disconnect(known)
            if delete_interface:
                segment.delete_interface(endpoint, netns_fd)

    def claim(self, endpoint: Endpoint, container_id: str, container_name: str) -> Endpoint:
        """Give an endpoint that was prepared ahead to the container that will use it.

        Raises ``NotFound`` if the endpoint is not attached, ``Conflict`` if the container has one.
        """
        with self._lock:
            endpoints = self._segments.find(endpoint.network).endpoints
            known = endpoints.get(endpoint.container_id)
            if known is None or known.endpoint_id != endpoint.endpoint_id or known.ports:
                raise NotFound(f"endpoint {endpoint.endpoint_id[:12]} is not ready to be used")
            if container_id in endpoints:
                raise Conflict(f"container {container_name} is attached already")
            del endpoints[endpoint.container_id]
            claimed = msgspec.structs.replace(
                known, container_id=container_id, container_name=container_name
            )
            endpoints[container_id] = claimed
            return claimed

    def rename(self, endpoint: Endpoint, container_name: str, names: tuple[str, ...]) -> Endpoint:
        """The endpoint of a container that is called otherwise by now."""
        with self._lock:
            changed = msgspec.structs.replace(endpoint, container_name=container_name, names=names)
            self._segments.find(endpoint.network).endpoints[endpoint.container_id] = changed
            return changed

    def endpoint(self, container_id: str, network: str = BRIDGE) -> Endpoint | None:
        """The present record of a container on a network, its published ports included."""
        with self._lock:
            segment = self._segments.get(network)
            return segment.endpoints.get(container_id) if segment else None

    def endpoints(self, network: str | None = None) -> tuple[Endpoint, ...]:
        """Those of one network, or of all."""
        with self._lock:
            return tuple(
                endpoint
                for segment in self._segments
                if network in (None, segment.network)
                for endpoint in segment.endpoints.values()
            )

    # -- published ports ---------------------------------------------------------------------

    def publish(self, endpoint: Endpoint, ports: Sequence[PortRequest]) -> list[PublishedPort]:
        """Make ports of a container reachable at the host, all or none of them.

        Raises ``PortUnavailable`` with Docker's words if one is taken, those that follow ``driver
        failed programming external connectivity on endpoint NAME (ID):``. The record with the
        ports in it is then that of :meth:`endpoint`.
        """
        if not ports:
            return []
        with self._lock:
            segment = self._segments.find(endpoint.network)
            if not isinstance(segment, BridgeNetwork):
                raise Conflict(f"no port of the host leads to network {segment.network}")
            return self._publisher.publish(segment, endpoint, ports)

    def unpublish(self, container_id: str) -> None:
        """Take back all published ports of a container."""
        with self._lock:
            self._publisher.unpublish(self._segments.bridged(), container_id)

    # -- after a crash, and the end ------------------------------------------------------------

    def take_over(self) -> None:
        """Before networks are defined that a former engine had: let its rules stand.

        Live containers have their connections meanwhile. :meth:`restore` replaces the rules, each
        table at once.
        """
        with self._lock:
            self._segments.kept = self._open().run("list tables")

    def restore(self, endpoints: Iterable[Endpoint]) -> list[str]:
        """Take over the endpoints of live containers from their records, and set up everything.

        For a new engine, which has defined its users' networks before, and after something else
        has flushed the firewall. Returns what could not be had again (a port that another program
        took meanwhile), a line each.
        """
        problems = []
        with self._lock:
            self.ensure()
            for endpoint in endpoints:
                try:
                    segment = self._segments.find(endpoint.network)
                    if endpoint.container_id not in segment.endpoints:
                        segment.adopt(endpoint)
                except JaulaError as exc:
                    problems.append(f"{endpoint.container_name}: {exc.message}")
                    continue
                try:
                    kept = self._publisher.reclaim(endpoint)
                except JaulaError as exc:
                    problems.append(f"{endpoint.container_name}: {exc.message}")
                    kept = msgspec.structs.replace(endpoint, ports=())
                segment.endpoints[endpoint.container_id] = kept
            self._publisher.keep_only(self.endpoints())
            self._segments.kept = ""
            self._segments.guard.load()
            for bridged in self._segments.bridged():
                bridged.load_firewall()
        return problems

    def watch(self) -> FirewallMonitor:
        """What becomes readable when another program changed the firewall; call repair() then."""
        with self._lock:
            if self._watch is None:
                self._watch = FirewallMonitor()
            return self._watch

    def repair(self) -> bool:
        """Put the firewall back if another program has removed it; whether that was needed."""
        with self._lock:
            if not self._segments or not self.watch().table_deleted():
                return False
            listing = self._open().run("list tables")
            guard = self._segments.guard
            found = [s for s in self._segments.bridged() if s.is_missing(listing)]
            unguarded = guard.is_missing(listing)
            if unguarded:
                guard.load()
            for segment in found:
                segment.load_firewall()
                for endpoint in segment.endpoints.values():
                    self._publisher.delete_udp_flows(
                        endpoint.ports
                    )  # made when nothing was translated
            return unguarded or bool(found)

    def sweep(self, live: Collection[str]) -> list[str]:
        """Remove what is left of containers whose ids are not in ``live``; say what it was."""
        removed = []
        with self._lock:
            for endpoint in self.endpoints():
                if endpoint.container_id not in live:
                    self.detach(endpoint)
                    removed.append(endpoint.container_id)
            self._segments.find(BRIDGE)
            for segment in self._segments:
                removed += segment.sweep()
        return removed

    def teardown(self, *, force: bool = False) -> bool:
        """Remove the bridges that no container is attached to, or with ``force`` all.

        Returns whether all are gone. Forwarding stays on: others may rely on it by now.
        """
        with self._lock:
            self._segments.find(BRIDGE)
            if force:
                for endpoint in self.endpoints():
                    self.detach(endpoint, delete_interface=True)
            return self._segments.take_down(idle_only=not force)

    def close(self) -> None:
        """Give up sockets; what was set up stays, for the next engine to restore."""
        with self._lock:
            self._publisher.close()
            self._segments.close()
            if self._nft is not None:
                self._nft.close()
            if self._watch is not None:
                self._watch.close()
            self._nft = self._watch = None
