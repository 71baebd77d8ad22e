"""The networks of one engine: endpoints, published ports, and their undoing.

Follows Docker's drivers in what a client can see. Synchronous; an attach takes about a
millisecond and a half. One lock, so any thread may call; the objects inside belong to the network
namespace of the thread that calls first.

A detach does not remove the container's interface: the kernel does when the namespace goes, and
16 ms of waiting for RCU are saved. Until then the firewall lets it say nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

import msgspec

from jaula.config import EngineConfig, Paths
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound
from jaula.kernel.links import mac_bytes
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.network import firewall, hostroutes, plans
from jaula.network.addresses import Addresses, Subnet, parse_subnet
from jaula.network.addressplan import AddressPlan
from jaula.network.bridge import Bridge, BridgePlan
from jaula.network.bridged import BridgedSegment
from jaula.network.firewall import Limits
from jaula.network.nftables import Nft, open_nft
from jaula.network.parent import Parent
from jaula.network.parented import ParentedSegment
from jaula.network.pools import parse_pools
from jaula.network.ports import PortRequest
from jaula.network.publisher import Publisher
from jaula.network.reservations import Binder
from jaula.network.segment import Joining, Segment
from jaula.network.watch import RulesetWatch
from jaula.spec.endpoint import Endpoint, PublishedPort
from jaula.spec.network import PARENTED, Network

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
        self._pools = parse_pools(config.address_pool)
        self._plan = BridgePlan(
            check_bridge_name(config.bridge), AddressPlan(fixed=fixed, pools=self._pools)
        )
        self._limits = Limits(past_firewall=config.publish_past_firewall)
        self._lock = threading.RLock()
        self._nft: Nft | None = None
        self._segments: dict[str, Segment] = {}
        self._publisher = Publisher(binder)
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
            network = plans.with_ipv6(network, self._pools, self._taken6())
            segment = self._new(network)
            try:
                addresses = segment.ensure()
            except BaseException:
                segment.close()
                raise
            self._segments[network.name] = segment
            return plans.with_subnet(network, addresses)

    def _new(self, network: Network) -> Segment:
        addresses6 = plans.addresses6(network)
        if network.driver in PARENTED:
            self._check_parent(network)
            return ParentedSegment(
                network.name,
                Parent(plans.parent_plan(network)),
                plans.address_plan(network, self._pools),
                self._promised,
                internal=network.internal,
                addresses6=addresses6,
            )
        return BridgedSegment(
            network.name,
            Bridge(plans.bridge_plan(network, self._pools), self._promised),
            self._open(),
            limits=plans.limits(network),
            addresses6=addresses6,
        )

    def _check_parent(self, network: Network) -> None:
        """The mode passthru has the parent for itself (Docker's words)."""
        for other in self._parented(network.parent):
            for one, name in ((other.parent.plan, other.network), (network, network.name)):
                if one.mode == "passthru":
                    raise NotAuthorized(
                        f"cannot use mode passthru of network {name}: macvlan network"
                        f" {other.network} is already using parent interface {network.parent}"
                    )

    def _parented(self, parent: str) -> list[ParentedSegment]:
        return [
            s
            for s in self._segments.values()
            if isinstance(s, ParentedSegment) and s.name == parent
        ]

    def parent_comes_with(self, parent: str) -> bool:
        """Whether a parent has to be made for a network, or was made for another one."""
        with self._lock:
            mine = self._parented(parent)
            return any(s.parent.plan.made for s in mine) or not self.has_interface(parent)

    def _taken6(self) -> list[IPv6Network]:
        with Rtnetlink() as links:
            host = hostroutes.networks6(links)
        return [*host, *(s for s in self.subnets() if isinstance(s, IPv6Network))]

    def has_interface(self, name: str) -> bool:
        """Whether the host has an interface of that name."""
        with self._lock, Rtnetlink() as links:
            return links.link(name) is not None

    def undefine(self, name: str) -> None:
        """Remove a user's network, which nobody is attached to."""
        with self._lock:
            segment = self._segments.get(name)
            if segment is None or name == BRIDGE:
                return
            if segment.endpoints:
                raise Conflict(f"network {name} has active endpoints")
            if not isinstance(segment, ParentedSegment) or self._parented(segment.name) == [
                segment
            ]:
                segment.take_down()
            segment.close()
            del self._segments[name]

    def clear(self, network: Network) -> None:
        """Remove what a creation or a removal that was cut off has left of a network."""
        with self._lock:
            if network.driver in PARENTED:
                if not self._parented(network.parent):
                    parent = Parent(plans.parent_plan(network))
                    parent.remove()
                    parent.close()
                return
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
            bridge = Bridge(self._plan, self._promised)
            found = BridgedSegment(BRIDGE, bridge, self._open(), limits=self._limits)
            self._segments[BRIDGE] = found
        return found

    def _bridged(self) -> list[BridgedSegment]:
        return [s for s in self._segments.values() if isinstance(s, BridgedSegment)]

    def _open(self) -> Nft:
        if self._nft is None:
            self._nft = open_nft()
        return self._nft

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know: changed settings, and firewalls that cut containers off."""
        with self._lock:
            listing = self._open().run("list chains", json=True)
            own = [segment.name for segment in self._bridged()] or [self._plan.name]
            return (
                *self._publisher.told,
                *(line for segment in self._segments.values() for line in segment.told),
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
            segment = self._segment(network)
            if container_id in segment.endpoints:
                raise NotAuthorized(
                    f"endpoint with name {container_name or container_id[:12]} already exists in"
                    f" network {network}"
                )
            joining = Joining(
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

    def lead_outside(self, endpoint: Endpoint, netns_fd: int) -> None:
        """Make an interface of a container the one of its default routes, if it has none."""
        with self._lock:
            try:
                self._segment(endpoint.network).lead_outside(endpoint, netns_fd)
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
            segment = self._segment(endpoint.network)
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
            if not isinstance(segment, BridgedSegment):
                raise Conflict(f"no port of the host leads to network {segment.network}")
            return self._publisher.publish(segment, endpoint, ports)

    def unpublish(self, container_id: str) -> None:
        """Take back all published ports of a container."""
        with self._lock:
            self._publisher.unpublish(self._bridged(), container_id)

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
                try:
                    kept = self._publisher.reclaim(endpoint)
                except JaulaError as exc:
                    problems.append(f"{endpoint.container_name}: {exc.message}")
                    kept = msgspec.structs.replace(endpoint, ports=())
                segment.endpoints[endpoint.container_id] = kept
            self._publisher.keep_only(self.endpoints())
            for bridged in self._bridged():
                bridged.load_firewall()
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
            found = [s for s in self._bridged() if s.is_missing(listing)]
            for segment in found:
                segment.load_firewall()
                for endpoint in segment.endpoints.values():
                    self._publisher.forget_flows(endpoint.ports)  # made when nothing was translated
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
                if not (isinstance(segment, ParentedSegment) and segment.parent.plan.made):
                    segment.take_down()
            return all(segment.addresses is None for segment in self._segments.values())

    def close(self) -> None:
        """Give up sockets; what was set up stays, for the next engine to restore."""
        with self._lock:
            self._publisher.close()
            for segment in self._segments.values():
                segment.close()
            self._segments.clear()
            if self._nft is not None:
                self._nft.close()
            if self._watch is not None:
                self._watch.close()
            self._nft = self._watch = None
