"""The default bridge network of one engine: endpoints, published ports, and their undoing.

Follows Docker's bridge driver in what a client can see. Synchronous; an attach takes about a
millisecond and a half. One lock, so any thread may call; the objects inside belong to the network
namespace of the thread that calls first.

A detach does not remove the container's interface: the kernel does when the namespace goes, and
16 ms of waiting for RCU are saved. Until then the firewall lets it say nothing.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Iterable, Sequence

import msgspec

from jaula.config import EngineConfig, Paths
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.kernel.netlink import mac_bytes
from jaula.network import conntrack, firewall
from jaula.network.addresses import Addresses, mac_of, parse_pool, parse_subnet
from jaula.network.bridge import PORT_PREFIX, Bridge
from jaula.network.nftables import FirewallError, Nft, open_nft
from jaula.network.ports import Binder, PortRequest, Reservations
from jaula.network.watch import RulesetWatch
from jaula.spec.endpoint import Endpoint, PublishedPort

BRIDGE = "bridge"
"""Name of the default network."""

_bridge_name = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")


class NetworkManager:
    """The bridge network of one engine."""

    def __init__(self, paths: Paths, config: EngineConfig, *, binder: Binder | None = None) -> None:
        """``binder`` takes ports where our own network namespace is not the host's."""
        if not _bridge_name.fullmatch(config.bridge):
            raise InvalidRequest(f"invalid bridge name {config.bridge!r}")
        self._name = config.bridge
        self._fixed = parse_subnet(config.bridge_subnet) if config.bridge_subnet else None
        self._pool = parse_pool(config.address_pool)
        self._lock = threading.RLock()
        self._opened: tuple[Bridge, Nft] | None = None
        self._addresses: Addresses | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._ports = Reservations(binder)
        self._guards_ports = True
        self._told: list[str] = []
        self._watch: RulesetWatch | None = None

    # -- the network -------------------------------------------------------------------------

    def ensure(self, network: str = BRIDGE) -> Addresses:
        """Make bridge and firewall if they are not there; cheap when they are.

        Raises ``NotFound`` for another network than the default one.
        """
        if network != BRIDGE:
            raise NotFound(f"network {network} not found")
        with self._lock:
            if self._addresses is None:
                bridge, _ = self._open()
                try:
                    addresses, told = bridge.set_up()
                except OSError as exc:
                    raise JaulaError(f"cannot set up the bridge {self._name}: {exc}") from exc
                self._told += told
                self._load_firewall(addresses)
                self._addresses = addresses
            return self._addresses

    def _open(self) -> tuple[Bridge, Nft]:
        if self._opened is None:
            nft = open_nft()
            self._opened = (Bridge(self._name, fixed=self._fixed, pool=self._pool), nft)
        return self._opened

    def _load_firewall(self, addresses: Addresses) -> None:
        """Put both tables in place, whole, whatever is there now."""
        rows = list(self._endpoints.values())
        _, nft = self._open()
        nft.run(firewall.ruleset(self._name, addresses.subnet, rows))
        if self._guards_ports:
            try:
                nft.run(firewall.bridge_ruleset(self._name, rows))
            except FirewallError as exc:
                self._guards_ports = False
                self._told.append(
                    f"containers on {self._name} can use each other's addresses: {exc.message}"
                )

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know: changed settings, and firewalls that cut containers off."""
        with self._lock:
            _, nft = self._open()
            drops = firewall.foreign_drops(nft.run("list chains", json=True), self._name)
            return (
                *self._told,
                *(
                    f"the firewall chain {chain} drops what it does not know: let {self._name}"
                    " pass in it, or containers do not reach outside"
                    for chain in drops
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
        mac: str | None = None,
        container_name: str = "",
    ) -> Endpoint:
        """Give the namespace an ``eth0`` on the bridge, with address and default route.

        Also brings its loopback up and switches IPv6 off on ``eth0``. On failure nothing is left.
        Raises ``InvalidRequest`` or ``Conflict`` for a bad or used address.
        """
        if mac is not None:
            try:
                mac_bytes(mac)
            except ValueError as exc:
                raise InvalidRequest(f"invalid MAC address {mac!r}") from exc
        with self._lock:
            addresses = self.ensure(network)
            bridge, _ = self._open()
            address = addresses.allocate(ip)
            endpoint_id = os.urandom(32).hex()
            endpoint = Endpoint(
                network,
                endpoint_id,
                container_id,
                container_name or container_id[:12],
                str(address),
                addresses.subnet.prefixlen,
                str(addresses.gateway),
                mac or mac_of(address),
                f"{PORT_PREFIX}{endpoint_id[:10]}",
            )
            try:
                bridge.connect(endpoint, netns_fd)
                if self._guards_ports:
                    self._add(firewall.admit(self._name, endpoint, verb="add"), addresses)
            except (OSError, JaulaError) as exc:
                bridge.delete(endpoint.host_interface)
                addresses.release(endpoint.ipv4)
                if isinstance(exc, JaulaError):
                    raise
                raise JaulaError(
                    f"failed to set up network {network} for {endpoint.container_name}: {exc}"
                ) from exc
            self._endpoints[container_id] = endpoint
            return endpoint

    def detach(self, endpoint: Endpoint, *, delete_interface: bool = False) -> None:
        """Take back a container's ports, address and right to speak; twice is no error.

        The interface goes with the container's namespace. ``delete_interface`` removes it now,
        for a container that lives on (16 ms).
        """
        with self._lock:
            known = self._endpoints.get(endpoint.container_id)
            if known is not None and known.endpoint_id == endpoint.endpoint_id:
                self.unpublish(endpoint.container_id)
                del self._endpoints[endpoint.container_id]
                if self._addresses is not None:
                    if self._guards_ports:
                        element = firewall.admit(self._name, endpoint, verb="delete")
                        self._delete(element, self._addresses)
                    self._addresses.release(endpoint.ipv4)
            if delete_interface:
                bridge, _ = self._open()
                bridge.delete(endpoint.host_interface)

    def claim(self, endpoint: Endpoint, container_id: str, container_name: str) -> Endpoint:
        """Give an endpoint that was prepared ahead to the container that will use it.

        Raises ``NotFound`` if the endpoint is not attached, ``Conflict`` if the container has one.
        """
        with self._lock:
            known = self._endpoints.get(endpoint.container_id)
            if known is None or known.endpoint_id != endpoint.endpoint_id or known.ports:
                raise NotFound(f"endpoint {endpoint.endpoint_id[:12]} is not ready to be used")
            if container_id in self._endpoints:
                raise Conflict(f"container {container_name} is attached already")
            del self._endpoints[endpoint.container_id]
            claimed = msgspec.structs.replace(
                known, container_id=container_id, container_name=container_name
            )
            self._endpoints[container_id] = claimed
            return claimed

    def endpoint(self, container_id: str) -> Endpoint | None:
        """The present record of a container, its published ports included."""
        with self._lock:
            return self._endpoints.get(container_id)

    def endpoints(self) -> tuple[Endpoint, ...]:
        with self._lock:
            return tuple(self._endpoints.values())

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
            known = self._endpoints.get(endpoint.container_id)
            if known is None or known.endpoint_id != endpoint.endpoint_id:
                raise NotFound(f"container {endpoint.container_name} is not attached")
            if known.ports:
                raise Conflict(f"ports of {endpoint.container_name} are already published")
            bindings = self._ports.reserve(endpoint.container_id, ports, known.ipv4)
            self._endpoints[endpoint.container_id] = msgspec.structs.replace(
                known, ports=tuple(bindings)
            )
            try:
                elements = firewall.publish(self._name, known, bindings, verb="add")
                self._add(elements, self.ensure())
                self._forget_flows(bindings)
            except JaulaError:
                self._endpoints[endpoint.container_id] = known
                self._ports.release(endpoint.container_id)
                raise
            return bindings

    def unpublish(self, container_id: str) -> None:
        """Take back all published ports of a container."""
        with self._lock:
            bindings = self._ports.release(container_id)
            known = self._endpoints.get(container_id)
            if known is None or not bindings:
                return
            self._endpoints[container_id] = msgspec.structs.replace(known, ports=())
            if self._addresses is not None:
                elements = firewall.publish(self._name, known, bindings, verb="delete")
                self._delete(elements, self._addresses)
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

        For a new engine, and after something else has flushed the firewall. Returns what could
        not be had again (a port that another program took meanwhile), a line each.
        """
        problems = []
        with self._lock:
            addresses = self.ensure()
            for endpoint in endpoints:
                if endpoint.container_id not in self._endpoints:
                    try:
                        addresses.allocate(endpoint.ipv4)
                    except JaulaError as exc:
                        problems.append(f"{endpoint.container_name}: {exc.message}")
                        continue
                ports = endpoint.ports
                if self._ports.held(endpoint.container_id) != ports:
                    self._ports.release(endpoint.container_id)
                    try:
                        self._ports.reserve(
                            endpoint.container_id, map(_as_request, ports), endpoint.ipv4
                        )
                    except JaulaError as exc:
                        problems.append(f"{endpoint.container_name}: {exc.message}")
                        ports = ()
                self._endpoints[endpoint.container_id] = msgspec.structs.replace(
                    endpoint, ports=ports
                )
            self._ports.keep_only({key: row.ipv4 for key, row in self._endpoints.items()})
            self._load_firewall(addresses)
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
            if self._addresses is None or not self.watch().table_deleted():
                return False
            _, nft = self._open()
            if not firewall.missing(nft.run("list tables"), self._name, self._guards_ports):
                return False
            self._load_firewall(self._addresses)
            return True

    def sweep(self, live: Collection[str]) -> list[str]:
        """Remove what is left of containers whose ids are not in ``live``; say what it was."""
        removed = []
        with self._lock:
            for endpoint in self.endpoints():
                if endpoint.container_id not in live:
                    self.detach(endpoint)
                    removed.append(endpoint.container_id)
            bridge, _ = self._open()
            kept = {endpoint.host_interface for endpoint in self._endpoints.values()}
            removed += [name for name in bridge.strays(kept) if bridge.delete(name)]
        return removed

    def teardown(self, *, force: bool = False) -> bool:
        """Remove bridge and firewall if no container is attached, or with ``force`` anyway.

        Returns whether they are gone. Forwarding stays on: others may rely on it by now.
        """
        with self._lock:
            if self._endpoints and not force:
                return False
            for endpoint in self.endpoints():
                self.detach(endpoint, delete_interface=True)
            bridge, nft = self._open()
            nft.run(firewall.delete(self._name, bridge_family=self._guards_ports))
            bridge.delete_bridge()
            self._addresses = None
            return True

    def close(self) -> None:
        """Give up sockets; what was set up stays, for the next engine to restore."""
        with self._lock:
            self._ports.close()
            if self._opened is not None:
                bridge, nft = self._opened
                bridge.close()
                nft.close()
            if self._watch is not None:
                self._watch.close()
            self._opened = self._watch = None
            self._addresses = None

    def _add(self, elements: str, addresses: Addresses) -> None:
        """Add elements; if the tables are gone, load them again first."""
        _, nft = self._open()
        try:
            nft.run(elements)
        except FirewallError:
            self._load_firewall(addresses)
            nft.run(elements)

    def _delete(self, elements: str, addresses: Addresses) -> None:
        """Take elements away; if they or the tables are not there, load what should be."""
        _, nft = self._open()
        try:
            nft.run(elements)
        except FirewallError:
            self._load_firewall(addresses)


def _as_request(binding: PublishedPort) -> PortRequest:
    """Ask again for exactly what was had."""
    return PortRequest(binding.container_port, binding.protocol, binding.host_ip, binding.host_port)
