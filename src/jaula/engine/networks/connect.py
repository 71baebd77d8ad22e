"""Connecting containers to networks: at their start, and while they run.

A container on the default network gets a sandbox that was prepared; one that is on users' networks
only gets its interfaces at its start. The first network that is not internal has the default
routes and the published ports.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from jaula.engine.networks import endpoints as network_endpoints
from jaula.engine.networks import etc_files
from jaula.engine.networks.endpoints import DEFAULT
from jaula.engine.userns import join
from jaula.engine.userns.id_ranges import IdMaps, IdRange
from jaula.errors import InvalidRequest, JaulaError, NotAuthorized
from jaula.network.ports.port import PortRequest
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.endpoint import ANY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdRange
    from jaula.runtime.client import Sandbox
    from jaula.spec.endpoint import Endpoint
    from jaula.state.records import ContainerRecord, Namespaces

log = logging.getLogger("jaula.network")


class NetworkConnector:
    """Connects containers. For a running one the caller holds its lock."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts

    # -- a start -----------------------------------------------------------------------------

    async def attach(
        self,
        record: ContainerRecord,
        members: network_endpoints.NetworkEndpoints,
        place: StartResources,
        maps: Callable[[IdRange], IdMaps | None],
    ) -> None:
        """Give a start its sandbox with all interfaces; ``place`` gives back what was taken.

        ``members`` are its networks, ``maps`` are id maps that are not the usual ones.

        :raises JaulaError: a network is gone, an address or a port is taken.
        """
        internal = {}
        for name in members:
            network = self._parts.networks.get(self._parts.networks.find(name))
            network_endpoints.check_kind(network)
            internal[name] = network is not None and network.internal
        first = network_endpoints.gateway_network(internal)
        for name in (first, *(n for n in members if n != first)):
            await self._join(record, place, name, members[name], maps)
        await self._serve_names(record, place.endpoints, place.net_fd, new=True)
        place.endpoints[0] = self._publish(record, place.endpoints[0])

    async def _join(
        self,
        record: ContainerRecord,
        place: StartResources,
        name: str,
        settings: EndpointSettings,
        maps: Callable[[IdRange], IdMaps | None],
    ) -> None:
        network, sandboxes = self._parts.network, self._parts.sandboxes
        ip, ip6, mac = _addresses(settings)
        lent = place.held.get("user")
        if place.sandbox is None:
            mac = record.body.mac_address or mac
            usual = lent is None and not record.resolved.namespaces.keep_id
            if name == DEFAULT and usual and not (ip or mac):
                prepared = await sandboxes.take()
                place.reserved, place.sandbox = prepared.ids, prepared.sandbox
                place.endpoints.append(prepared.endpoint)
                place.endpoints[0] = network.claim(prepared.endpoint, record.id, record.name)
                return
            if lent is not None:
                place.sandbox = await sandboxes.bare_within(lent)
            else:
                place.reserved, place.sandbox = await sandboxes.bare(maps=maps)
        place.endpoints.append(
            network.attach(
                name,
                record.id,
                place.net_fd,
                ip=ip or None,
                ip6=ip6 or None,
                mac=mac or None,
                container_name=record.name,
                interface=network_endpoints.free_interface(e.interface for e in place.endpoints),
                default_route=not place.endpoints,
                names=network_endpoints.dns_names(record, settings) if name != DEFAULT else (),
                links=network_endpoints.link_aliases(record, settings) if name != DEFAULT else {},
            )
        )

    def _publish(self, record: ContainerRecord, endpoint: Endpoint) -> Endpoint:
        """Publish a container's ports on the network that leads outside; the endpoint with them."""
        network = self._parts.networks.get(endpoint.network)
        anywhere = (network and network.host_binding) or self._parts.config.host_binding
        if anywhere == ANY:  # Docker's word for both families
            anywhere = ""
        ports = [
            PortRequest(
                m.container_port, m.protocol, m.host_ip or anywhere, m.host_port, m.host_port_end
            )
            for m in record.resolved.ports
        ]
        if not ports or endpoint.internal or not endpoint.publishes:
            return endpoint
        try:
            self._parts.network.publish(endpoint, ports)
        except JaulaError as error:
            error.args = (error.message,)
            error.message = (
                "driver failed programming external connectivity on endpoint"
                f" {record.name} ({endpoint.endpoint_id}): {error.message}"
            )
            raise
        return self._parts.network.endpoint(record.id, endpoint.network) or endpoint

    async def _serve_names(
        self,
        record: ContainerRecord,
        endpoints: Iterable[Endpoint],
        net_fd: int,
        *,
        new: bool = False,
    ) -> None:
        if any(endpoint.network != DEFAULT for endpoint in endpoints):
            servers = record.body.host_config.dns
            await self._parts.resolvers.open(record.id, net_fd, servers, new=new)

    def told(self, record: ContainerRecord, endpoints: Iterable[Endpoint], action: str) -> None:
        """Emit the events of endpoints that came or went."""
        for endpoint in endpoints:
            self._parts.events.emit(
                "network",
                action,
                self._parts.networks.id_of(endpoint.network),
                {
                    "container": record.id,
                    "name": endpoint.network,
                    "type": self._parts.networks.driver_of(endpoint.network),
                },
            )

    # -- while it runs -----------------------------------------------------------------------

    async def connect(self, container: Container, name: str, settings: EndpointSettings) -> None:
        """Connect a container to a network, now if it runs, and at every start.

        :raises NotAuthorized: it is connected already.
        :raises InvalidRequest: its network mode or the network does not allow it.
        """
        parts, record = self._parts, container.record
        _check_mode(record.resolved.namespaces)
        network_endpoints.check(name, parts.networks.get(name), settings)
        members = network_endpoints.settings_of(record)
        if name in members and container.live:
            raise NotAuthorized(
                f"endpoint with name {record.name} already exists in network {name}"
            )
        following = {**members, name: settings}
        if not container.live:
            self._book(container, networks=following)
            return
        fds = join.open_namespaces(container, ("network",))
        try:
            endpoint = await self._add(record, name, settings, fds["network"])
        finally:
            os.close(fds["network"])
        endpoints = _ordered([*record.endpoints, endpoint])
        self._book_endpoints(container, endpoints, networks=following)
        etc_files.add_addresses(parts, record, endpoint)
        self.told(record, (endpoint,), "connect")

    async def _add(
        self, record: ContainerRecord, name: str, settings: EndpointSettings, net_fd: int
    ) -> Endpoint:
        """A further interface of a running container; undone if anything fails."""
        network = self._parts.network
        ip, ip6, mac = _addresses(settings)
        here = record.endpoints
        outside = any(not e.internal for e in here)
        endpoint = network.attach(
            name,
            record.id,
            net_fd,
            ip=ip or None,
            ip6=ip6 or None,
            mac=mac or None,
            container_name=record.name,
            interface=network_endpoints.free_interface(e.interface for e in here),
            default_route=not outside,
            names=network_endpoints.dns_names(record, settings) if name != DEFAULT else (),
            links=network_endpoints.link_aliases(record, settings) if name != DEFAULT else {},
        )
        try:
            if not outside:
                endpoint = self._publish(record, endpoint)
            if record.id not in self._parts.resolvers:
                await self._serve_names(record, (endpoint,), net_fd)
                if record.id in self._parts.resolvers:
                    etc_files.use_resolver(self._parts, record)
        except BaseException:
            network.detach(endpoint, delete_interface=True, netns_fd=net_fd)
            raise
        return endpoint

    async def disconnect(self, container: Container, name: str) -> None:
        """Take a container off a network, now if it runs, and for every start.

        :raises JaulaError: it is not connected, or shares its network.
        """
        parts, record = self._parts, container.record
        _check_mode(record.resolved.namespaces)
        members = network_endpoints.settings_of(record)
        if name not in members:
            raise NotAuthorized(f"container {record.id} is not connected to network {name}")
        following = {key: value for key, value in members.items() if key != name}
        gone = next((e for e in record.endpoints if e.network == name), None)
        if not container.live or gone is None:
            self._book(container, networks=following)
            return
        left = _ordered([e for e in record.endpoints if e.network != name])
        # Booked first: what an engine that is killed now has not undone, the next one sweeps.
        self._book_endpoints(container, left, networks=following)
        fds = join.open_namespaces(container, ("network",))
        try:
            parts.network.detach(gone, delete_interface=True, netns_fd=fds["network"])
        finally:
            os.close(fds["network"])
        if all(e.network == DEFAULT for e in left):
            parts.resolvers.close_one(record.id)
        self.told(record, (gone,), "disconnect")
        if gone == record.endpoint and left and not left[0].internal:
            self._book_endpoints(container, [self._lead(container, left[0]), *left[1:]])

    def _lead(self, container: Container, chosen: Endpoint) -> Endpoint:
        """The network that led outside is gone: this one does now, with the ports."""
        fds = join.open_namespaces(container, ("network",))
        try:
            self._parts.network.lead_outside(chosen, fds["network"])
        finally:
            os.close(fds["network"])
        try:
            return self._publish(container.record, chosen)
        except JaulaError as error:
            log.warning("container %s: %s", container.name, error)
            return chosen

    def _book_endpoints(
        self, container: Container, endpoints: Sequence[Endpoint], **fields: object
    ) -> None:
        first = endpoints[0] if endpoints else None
        self._book(
            container,
            endpoint=first,
            more_endpoints=tuple(endpoints[1:]),
            ports=first.ports if first else (),
            **fields,
        )

    def _book(self, container: Container, **fields: object) -> None:
        before = container.record
        container.change(**fields)
        try:
            self._parts.registry.save(container)
        except JaulaError:
            if not container.live:
                container.record = before
            raise

    def renamed(self, container: Container) -> None:
        """Let a running container be found by its new name."""
        record, members = container.record, network_endpoints.settings_of(container.record)
        changed = [
            self._parts.network.rename(
                e,
                record.name,
                network_endpoints.dns_names(record, members[e.network]) if e.names else (),
            )
            for e in record.endpoints
        ]
        if changed:
            self._book_endpoints(container, changed)

    # -- the end ---------------------------------------------------------------------------------

    def release(self, record: ContainerRecord) -> None:
        """Give back every address and port of a container that has ended."""
        self._parts.resolvers.close_one(record.id)
        for endpoint in record.endpoints:
            self._parts.network.detach(endpoint)
        self.told(record, record.endpoints, "disconnect")


def _ordered(endpoints: list[Endpoint]) -> list[Endpoint]:
    """The one that leads outside first."""
    if not endpoints:
        return []
    first = network_endpoints.gateway_network({e.network: e.internal for e in endpoints})
    return sorted(endpoints, key=lambda e: e.network != first)


def _addresses(settings: EndpointSettings) -> tuple[str, str, str]:
    ipam = settings.ipam_config
    if ipam is None:
        return "", "", settings.mac_address
    return ipam.ipv4_address, ipam.ipv6_address, settings.mac_address


def _check_mode(modes: Namespaces) -> None:
    if modes.net.host:
        raise InvalidRequest(
            "container cannot be disconnected from host network or connected to host network"
        )
    if modes.net.container:
        raise InvalidRequest(
            "container sharing network namespace with another container or host cannot be"
            " connected to any other network"
        )
    if not modes.network:
        raise InvalidRequest(
            "container cannot be connected to multiple networks with one of the networks in"
            " private (none) mode"
        )


class StartResources:
    """What a start has taken: ids, a sandbox, endpoints. :meth:`give_back` undoes it.

    ``ids`` are those of the container's user namespace, None where that is the host's;
    ``reserved`` is the range to give back at the end. They differ where a container borrows a
    user namespace but has a network of its own; ``borrowed`` is then in use once more. ``held`` are
    descriptors of namespaces that another container lends, by OCI type.
    """

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self.ids: IdRange | None = None
        self.reserved: IdRange | None = None
        self.borrowed: IdRange | None = None
        self.held: dict[str, int] = {}
        self.sandbox: Sandbox | None = None
        self.endpoints: list[Endpoint] = []

    @property
    def endpoint(self) -> Endpoint | None:
        """The one that leads outside."""
        return self.endpoints[0] if self.endpoints else None

    @property
    def net_fd(self) -> int:
        """The sandbox's network namespace."""
        assert self.sandbox is not None
        return self.sandbox.net_fd

    def close_sandbox(self) -> None:
        """Drop our descriptors; the container holds its namespaces itself."""
        if self.sandbox is not None:
            self.sandbox.close()
            self.sandbox = None
        while self.held:
            os.close(self.held.popitem()[1])

    def release(self) -> None:
        """Undo everything that was taken."""
        while self.endpoints:
            self._parts.network.detach(self.endpoints.pop())
        self.close_sandbox()
        if self.reserved is not None:
            self._parts.ranges.release(self.reserved.start)
            self.reserved = None
        if self.borrowed is not None:
            self._parts.ranges.release(self.borrowed.start)
            self.borrowed = None
