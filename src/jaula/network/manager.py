"""The bridge networks of one engine: endpoints, published ports, and their undoing.

Follows Docker's bridge driver in what a client can see. Synchronous; an attach takes about a
millisecond and a half. One lock, so any thread may call; the objects inside belong to the network
namespace of the thread that calls first.

A detach does not remove the container's interface: the kernel does when the namespace goes, and
16 ms of waiting for RCU are saved. Until then the firewall lets it say nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Network

import msgspec

from jaula.config import EngineConfig, Paths
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound
from jaula.kernel.links import mac_bytes
from jaula.network import conntrack, firewall, plans
from jaula.network.addresses import Addresses, Subnet, parse_pool, parse_subnet
from jaula.network.bridge import Bridge, BridgePlan
from jaula.network.nftables import Nft, open_nft
from jaula.network.ports import Binder, PortRequest, Reservations
from jaula.network.segment import Segment
from jaula.network.watch import RulesetWatch
from jaula.spec.endpoint import Endpoint, PublishedPort
from jaula.spec.network import Network

BRIDGE = "bridge"
"""Name of the default network."""

_bridge_name = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")


def check_bridge_name(name: str) -> str:
    """The name of a bridge that nft and the kernel take; InvalidRequest for another."""
    if not _bridge_name.fullmatch(name):
        raise InvalidRequest(f"invalid bridge name {name!r}")
    return name


class NetworkManager:
    """All bridge networks of one engine, the default one among them."""

    def __init__(self, paths: Paths, config: EngineConfig, *, binder: Binder | None = None) -> None:
        """``binder`` takes ports where our own network namespace is not the host's."""
        fixed = parse_subnet(config.bridge_subnet) if config.bridge_subnet else None
        self._pool = parse_pool(config.address_pool)
        self._plan = BridgePlan(check_bridge_name(config.bridge), fixed=fixed, pool=self._pool)
        self._lock = threading.RLock()
        self._nft: Nft | None = None
        self._segments: dict[str, Segment] = {}
        self._ports = Reservations(binder)
        self._told: list[str] = []
        self._watch: RulesetWatch | None = None

    # -- networks ----------------------------------------------------------------------------

    def ensure(self, network: str = BRIDGE) -> Addresses:
        """Make bridge and firewall if they are not there; cheap when they are.

        Raises ``NotFound`` for a network that was not defined.
        """
        with self._lock:
            return self._segment(network).ensure()

    def define(self, network: Network) -> Network:
        """Make a user's network; the document with the subnets that it has now.

        Raises ``Conflict`` if an interface of its bridge's name is there and no bridge, and
        ``JaulaError`` if no subnet is free. Nothing is left then.
        """
        with self._lock:
            if network.name in self._segments:
                raise Conflict(f"network with name {network.name} already exists")
            network = plans.with_ipv6(network)
            bridge = Bridge(plans.bridge_plan(network, self._pool), self._promised)
            segment = Segment(
                network.name,
                bridge,
                self._open(),
                limits=plans.limits(network),
                addresses6=plans.addresses6(network),
            )
            try:
                addresses = segment.ensure()
            except JaulaError:
                bridge.close()
                raise
            self._segments[network.name] = segment
            return plans.with_subnet(network, addresses)

    def has_interface(self, name: str) -> bool:
        """Whether the host has an interface of that name."""
        with self._lock:
            return self._segment(BRIDGE).bridge.has(name)

    def undefine(self, name: str) -> None:
        """Remove a user's network, which nobody is attached to."""
        with self._lock:
            segment = self._segments.get(name)
            if segment is None or name == BRIDGE:
                return
            if segment.endpoints:
                raise Conflict(f"network {name} has active endpoints")
            segment.take_down()
            segment.bridge.close()
            del self._segments[name]

    def clear(self, network: Network) -> None:
        """Remove what a creation or a removal that was cut off has left of a network."""
        with self._lock:
            bridge = Bridge(BridgePlan(network.bridge))
            try:
                self._open().run(firewall.delete(network.bridge, ipv6=True))
                bridge.delete_bridge()
            finally:
                bridge.close()

    def subnets(self) -> list[Subnet]:
        """Those of all networks that are set up."""
        with self._lock:
            found: list[Subnet] = []
            for segment in self._segments.values():
                found += [a.subnet for a in (segment.addresses, segment.addresses6) if a]
            return found

    def _promised(self) -> list[IPv4Network]:
        return [subnet for subnet in self.subnets() if isinstance(subnet, IPv4Network)]

    def _segment(self, network: str) -> Segment:
        found = self._segments.get(network)
        if found is None:
            if network != BRIDGE:
                raise NotFound(f"network {network} not found")
            found = Segment(BRIDGE, Bridge(self._plan, self._promised), self._open())
            self._segments[BRIDGE] = found
        return found

    def _open(self) -> Nft:
        if self._nft is None:
            self._nft = open_nft()
        return self._nft

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know: changed settings, and firewalls that cut containers off."""
        with self._lock:
            listing = self._open().run("list chains", json=True)
            segments = list(self._segments.values())
            own = [segment.name for segment in segments] or [self._plan.name]
            return (
                *self._told,
                *(line for segment in segments for line in segment.told),
                *(
                    f"the firewall chain {chain} drops what it does not know: let {own[0]}"
                    " pass in it, or containers do not reach outside"
                    for chain in firewall.foreign_drops(listing, *own)
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
            segment = self._segment(network)
            if container_id in segment.endpoints:
                raise NotAuthorized(
                    f"endpoint with name {container_name or container_id[:12]} already exists in"
                    f" network {network}"
                )
            return segment.connect(
                container_id,
                container_name,
                netns_fd,
                ip=ip,
                ip6=ip6,
                mac=mac,
                interface=interface,
                default_route=default_route,
                names=names,
            )

    def lead_outside(self, endpoint: Endpoint, netns_fd: int) -> None:
        """Make an interface of a container the one of its default routes, if it has none."""
        with self._lock:
            try:
                self._segment(endpoint.network).bridge.lead_outside(endpoint, netns_fd)
            except OSError as exc:
                raise JaulaError(
                    f"failed to route {endpoint.container_name} by {endpoint.network}: {exc}"
                ) from exc

    def detach(self, endpoint: Endpoint, *, delete_interface: bool = False) -> None:
        """Take back a container's ports, address and right to speak; twice is no error.

        The interface goes with the container's namespace. ``delete_interface`` removes it now,
        for a container that lives on (16 ms).
        """
        with self._lock:
            segment = self._segment(endpoint.network)
            known = segment.endpoints.get(endpoint.container_id)
            if known is not None and known.endpoint_id == endpoint.endpoint_id:
                if known.ports:
                    self.unpublish(endpoint.container_id)
                segment.disconnect(known)
            if delete_interface:
                segment.bridge.delete(endpoint.host_interface)

    def claim(self, endpoint: Endpoint, container_id: str, container_name: str) -> Endpoint:
        """Give an endpoint that was prepared ahead to the container that will use it.

        Raises ``NotFound`` if the endpoint is not attached, ``Conflict`` if the container has one.
        """
        with self._lock:
            endpoints = self._segment(endpoint.network).endpoints
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
            self._segment(endpoint.network).endpoints[endpoint.container_id] = changed
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
                for name, segment in self._segments.items()
                if network in (None, name)
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
            segment = self._segment(endpoint.network)
            known = segment.endpoints.get(endpoint.container_id)
            if known is None or known.endpoint_id != endpoint.endpoint_id:
                raise NotFound(f"container {endpoint.container_name} is not attached")
            if known.ports:
                raise Conflict(f"ports of {endpoint.container_name} are already published")
            bindings = self._ports.reserve(endpoint.container_id, ports, known.ipv4)
            segment.endpoints[endpoint.container_id] = msgspec.structs.replace(
                known, ports=tuple(bindings)
            )
            try:
                segment.publish(known, bindings, verb="add")
                self._forget_flows(bindings)
            except JaulaError:
                segment.endpoints[endpoint.container_id] = known
                self._ports.release(endpoint.container_id)
                raise
            return bindings

    def unpublish(self, container_id: str) -> None:
        """Take back all published ports of a container."""
        with self._lock:
            bindings = self._ports.release(container_id)
            for segment in self._segments.values():
                known = segment.endpoints.get(container_id)
                if known is None or not known.ports or not bindings:
                    continue
                segment.endpoints[container_id] = msgspec.structs.replace(known, ports=())
                segment.publish(known, bindings, verb="delete")
                self._forget_flows(bindings)

    def _forget_flows(self, ports: Sequence[PublishedPort]) -> None:
        try:
            conntrack.forget(ports)
        except OSError as exc:
            # Not worth a failure: such flows end by themselves when they are silent for 2 minutes.
            self._told.append(f"UDP flows of a former owner of a port may go on: {exc}")

    # -- after a crash, and the end ------------------------------------------------------------

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
                    segment = self._segment(endpoint.network)
                    if endpoint.container_id not in segment.endpoints:
                        segment.adopt(endpoint)
                except JaulaError as exc:
                    problems.append(f"{endpoint.container_name}: {exc.message}")
                    continue
                ports = endpoint.ports
                if ports and self._ports.held(endpoint.container_id) != ports:
                    self._ports.release(endpoint.container_id)
                    try:
                        self._ports.reserve(
                            endpoint.container_id, map(_as_request, ports), endpoint.ipv4
                        )
                    except JaulaError as exc:
                        problems.append(f"{endpoint.container_name}: {exc.message}")
                        ports = ()
                segment.endpoints[endpoint.container_id] = msgspec.structs.replace(
                    endpoint, ports=ports
                )
            published = [row for row in self.endpoints() if row.ports]
            self._ports.keep_only({row.container_id: row.ipv4 for row in published})
            for segment in self._segments.values():
                segment.load_firewall(segment.ensure())
        return problems

    def watch(self) -> RulesetWatch:
        """What becomes readable when another program changed the firewall; call repair() then."""
        with self._lock:
            if self._watch is None:
                self._watch = RulesetWatch()
            return self._watch

    def repair(self) -> bool:
        """Put the firewall back if another program has removed it; whether that was needed."""
        with self._lock:
            if not self._segments or not self.watch().table_deleted():
                return False
            listing = self._open().run("list tables")
            found = [s for s in self._segments.values() if s.is_missing(listing)]
            for segment in found:
                segment.load_firewall(segment.ensure())
            return bool(found)

    def sweep(self, live: Collection[str]) -> list[str]:
        """Remove what is left of containers whose ids are not in ``live``; say what it was."""
        removed = []
        with self._lock:
            for endpoint in self.endpoints():
                if endpoint.container_id not in live:
                    self.detach(endpoint)
                    removed.append(endpoint.container_id)
            self._segment(BRIDGE)
            for segment in self._segments.values():
                removed += segment.sweep()
        return removed

    def teardown(self, *, force: bool = False) -> bool:
        """Remove the bridges that no container is attached to, or with ``force`` all.

        Returns whether all are gone. Forwarding stays on: others may rely on it by now.
        """
        with self._lock:
            self._segment(BRIDGE)
            for segment in self._segments.values():
                if segment.endpoints and not force:
                    continue
                for endpoint in tuple(segment.endpoints.values()):
                    self.detach(endpoint, delete_interface=True)
                segment.take_down()
            return all(segment.addresses is None for segment in self._segments.values())

    def close(self) -> None:
        """Give up sockets; what was set up stays, for the next engine to restore."""
        with self._lock:
            self._ports.close()
            for segment in self._segments.values():
                segment.bridge.close()
            self._segments.clear()
            if self._nft is not None:
                self._nft.close()
            if self._watch is not None:
                self._watch.close()
            self._nft = self._watch = None


def _as_request(binding: PublishedPort) -> PortRequest:
    """Ask again for exactly what was had."""
    return PortRequest(binding.container_port, binding.protocol, binding.host_ip, binding.host_port)
