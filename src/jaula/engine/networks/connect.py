"""Connect containers to networks: at a start, and while they run.

A container whose first network is the default one gets a sandbox from the pool. Every other one
gets its interfaces at its start. The gateways (:func:`endpoints.gateways`) have the default routes
and the published ports. They move when a running container is connected to a network that precedes
theirs, or disconnected from theirs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.networks import container_links, provided_files
from jaula.engine.networks import endpoints as network_endpoints
from jaula.engine.networks.endpoints import DEFAULT
from jaula.engine.networks.restore_networks import restore_resolvers
from jaula.engine.userns import join
from jaula.engine.userns.id_ranges import IdMaps, IdRange
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized
from jaula.network.network_driver import MacAddressInUse
from jaula.network.port_mapper import PortRequest
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.endpoint_record import ANY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from jaula.engine.containers.start_resources import StartResources
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdRange
    from jaula.spec.endpoint_record import Endpoint, Gateways, PublishedPort
    from jaula.state.container_records import ContainerRecord, Namespaces, PortMapping

log = logging.getLogger("jaula.network")

_DELETION_TIMEOUT = 3.0  # seconds in which the kernel deletes the interface of a former namespace
_RETRY_INTERVAL = 0.02  # seconds


class NetworkConnector:
    """Connects containers to networks. For a running container the caller holds its lock."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # -- start ---------------------------------------------------------------------------------

    async def started(
        self,
        container: Container,
        connected: Sequence[Endpoint],
        *,
        restored: bool,
        first: bool,
    ) -> None:
        """Follow a start: the names of linked containers, and the events of the endpoints.

        ``restored`` says that the processes are those of a checkpoint, in a new namespace. No
        container can be linked to one at its ``first`` start.
        """
        if restored:
            await restore_resolvers(self._services, (container,))
        if not first:
            container_links.update_linked_hosts(self._services, container)
        self.emit(container.record, connected, "connect")

    async def attach(
        self,
        record: ContainerRecord,
        networks: network_endpoints.NetworkEndpoints,
        resources: StartResources,
        maps: Callable[[IdRange], IdMaps | None],
        *,
        carrier: bool = True,
    ) -> None:
        """Give a start its sandbox with all interfaces; ``resources`` releases what was taken.

        ``networks`` are the container's, by name. ``maps`` returns id maps that differ from the
        default ones. Without ``carrier`` no packet arrives before the restored processes run.

        :raises JaulaError: when a network is gone, or an address or a port is in use.
        """
        manager = self._services.network_manager
        for name in networks:
            network = self._services.network_store.get(self._services.network_store.find(name))
            network_endpoints.check_kind(network)
        alone = len(networks) == 1
        for name, settings in networks.items():
            await self._join(record, resources, name, settings, maps, alone=alone, carrier=carrier)
        gateways = network_endpoints.gateways(resources.endpoints, networks)
        if len(networks) > 1:
            manager.set_default_routes(gateways, resources.net_fd, replace=True)
        await self._serve_names(record, resources.endpoints, resources.net_fd, new=True)
        self._publish(record, gateways)
        resources.endpoints[:] = self._current(record.id, resources.endpoints)

    async def _join(
        self,
        record: ContainerRecord,
        resources: StartResources,
        name: str,
        settings: EndpointSettings,
        maps: Callable[[IdRange], IdMaps | None],
        *,
        alone: bool,
        carrier: bool,
    ) -> None:
        """Add the interface on one network; with ``alone`` it is the only one, with its routes."""
        network, sandboxes = self._services.network_manager, self._services.sandbox_pool
        ip, ip6, mac = _addresses(settings)
        user_fd = resources.joined_fds.get("user")
        if resources.sandbox is None:
            mac = record.body.mac_address or mac
            default_maps = user_fd is None and not record.resolved.namespaces.keep_id
            if name == DEFAULT and default_maps and not (ip or mac):
                prepared = await sandboxes.take(record.id)
                resources.reserved, resources.sandbox = prepared.ids, prepared.sandbox
                resources.init = prepared.init
                resources.endpoints.append(prepared.endpoint)
                resources.endpoints[0] = network.claim(
                    prepared.endpoint,
                    record.id,
                    record.name,
                    egress=record.host_config.egress,
                    listen=record.host_config.listen,
                )
                return
            if user_fd is not None:
                resources.sandbox = await sandboxes.create_in_userns(user_fd)
            else:
                resources.reserved, resources.sandbox = await sandboxes.create(maps=maps)
        for address in (ip, ip6) if name == DEFAULT else ():
            if address:
                sandboxes.release_address(address)
        # No other task runs between the release of an address and its use.
        resources.endpoints.append(
            await self._add(
                record,
                name,
                msgspec.structs.replace(settings, mac_address=mac),
                resources.net_fd,
                resources.endpoints,
                record.network_ids.get(name, ""),
                default_route=alone,
                carrier=carrier,
            )
        )

    async def _add(
        self,
        record: ContainerRecord,
        name: str,
        settings: EndpointSettings,
        net_fd: int,
        others: Iterable[Endpoint],
        network_id: str,
        *,
        default_route: bool = False,
        carrier: bool = True,
    ) -> Endpoint:
        """Add an interface to a namespace that has those of ``others``.

        Wait until the kernel has deleted a former interface that has the MAC address.

        :raises Conflict: when the network is not the one of ``network_id``.
        """
        ip, ip6, mac = _addresses(settings)
        deadline = time.monotonic() + _DELETION_TIMEOUT
        while True:
            self._check_identity(record, name, network_id)
            try:
                return self._services.network_manager.attach(
                    name,
                    record.id,
                    net_fd,
                    ip=ip or None,
                    ip6=ip6 or None,
                    mac=mac or None,
                    container_name=record.name,
                    interface=network_endpoints.free_interface(each.interface for each in others),
                    default_route=default_route,
                    names=network_endpoints.dns_names(record, settings) if name != DEFAULT else (),
                    links=network_endpoints.link_aliases(record, settings)
                    if name != DEFAULT
                    else {},
                    egress=record.host_config.egress,
                    listen=record.host_config.listen,
                    carrier=carrier,
                )
            except MacAddressInUse:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_RETRY_INTERVAL)

    def identify(self, container: Container) -> None:
        """Record the ids of a container's networks, which its client may use now."""
        record = container.record
        ids = {
            name: self._services.network_store.id_of(name)
            for name in network_endpoints.settings_of(record)
        }
        container.change(network_ids={**record.network_ids, **ids})

    def _check_identity(self, record: ContainerRecord, name: str, network_id: str) -> None:
        """Check that a network is the one that was authorized, unless the owners are the same.

        Another client may have removed that one, and created its own with the name. It would reach
        every port of the container. ``network_id`` '' is of a container of an older engine.

        :raises Conflict: when it is another one.
        """
        network = self._services.network_store.get(name)
        if network is None or network_id in ("", network.id):
            return
        if network.owner not in ("", record.owner):
            raise Conflict(
                f"network {name} of container {record.name} was removed, and another client has"
                " created one of that name",
                hint="start the container again, or connect it to another network",
            )

    def _publish(self, record: ContainerRecord, gateways: Gateways) -> None:
        """Publish the ports on the networks with the default routes.

        A port that the engine has chosen keeps its number when the gateways of a running container
        change.
        """
        gateways = gateways.publishing()
        endpoint = gateways.ipv4 or gateways.ipv6
        if endpoint is None or not record.resolved.ports:
            return
        numbers: dict[tuple[int, str], dict[int, None]] = {}  # in their order
        for port in record.ports:
            numbers.setdefault((port.container_port, port.protocol), {})[port.host_port] = None
        preferred = {key: iter(known) for key, known in numbers.items()}
        ports = self._port_requests(endpoint, record.resolved.ports, preferred)
        try:
            self._services.network_manager.publish(gateways, ports)
        except JaulaError as error:
            _name_endpoint(error, endpoint)
            raise

    def _port_requests(
        self,
        endpoint: Endpoint,
        mappings: Iterable[PortMapping],
        numbers: Mapping[tuple[int, str], Iterator[int]],
    ) -> list[PortRequest]:
        """Return the requests for ports; ``numbers`` are those that a choice prefers."""
        network = self._services.network_store.get(endpoint.network)
        default_ip = (network and network.host_binding) or self._services.config.host_binding
        if default_ip == ANY:  # Docker's value for both address families
            default_ip = ""
        ports = []
        for m in mappings:
            left = numbers.get((m.container_port, m.protocol), iter(()))
            ports.append(
                PortRequest(
                    m.container_port,
                    m.protocol,
                    m.host_ip or default_ip,
                    m.host_port,
                    m.host_port_end,
                    next(left, None),
                )
            )
        return ports

    def change_ports(
        self,
        record: ContainerRecord,
        added: Sequence[PortMapping],
        removed: Collection[PublishedPort],
    ) -> tuple[list[PublishedPort], list[Endpoint]]:
        """Change the published ports of a running container: all or nothing.

        Return the new ports, and all endpoints of the container for :meth:`endpoint_fields`.

        :raises InvalidRequest: when no network of the container can publish ports.
        :raises PortUnavailable: when a port is taken.
        """
        gateways = network_endpoints.gateways(
            record.endpoints, network_endpoints.settings_of(record)
        ).publishing()
        endpoint = gateways.ipv4 or gateways.ipv6
        if endpoint is None:
            raise InvalidRequest(
                f"container {record.name} has no network on which ports can be published"
            )
        requests = self._port_requests(endpoint, added, {})
        try:
            ports = self._services.network_manager.change_ports(gateways, requests, removed)
        except JaulaError as error:
            _name_endpoint(error, endpoint)
            raise
        return ports, self._current(record.id, record.endpoints)

    def _current(self, container_id: str, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """Return the endpoints with the ports that are published to them now."""
        find = self._services.network_manager.endpoint
        return [find(container_id, endpoint.network) or endpoint for endpoint in endpoints]

    async def _serve_names(
        self,
        record: ContainerRecord,
        endpoints: Iterable[Endpoint],
        net_fd: int,
        *,
        new: bool = False,
    ) -> None:
        if network_endpoints.needs_resolver(endpoints):
            servers = record.body.host_config.dns
            await self._services.dns_servers.open(record.id, net_fd, servers, new=new)

    def emit(self, record: ContainerRecord, endpoints: Iterable[Endpoint], action: str) -> None:
        """Emit the events of endpoints that were connected or disconnected."""
        for endpoint in endpoints:
            self._services.events.emit(
                "network",
                action,
                self._services.network_store.id_of(endpoint.network),
                {
                    "container": record.id,
                    "name": endpoint.network,
                    "type": self._services.network_store.driver_of(endpoint.network),
                },
            )

    # -- running containers --------------------------------------------------------------------

    async def connect(
        self,
        container: Container,
        name: str,
        settings: EndpointSettings,
        network_id: str = "",
    ) -> None:
        """Connect a container to a network, now if it runs, and at every start.

        ``network_id`` is the network that was authorized, '' for the one that the container had.
        A running container keeps its networks, routes and ports if it fails.

        :raises NotAuthorized: when it is connected already.
        :raises Conflict: when the network is not the authorized one any more.
        :raises InvalidRequest: when its network mode or the network does not allow it.
        """
        services, record = self._services, container.record
        _check_mode(record.resolved.namespaces)
        network_endpoints.check(name, services.network_store.get(name), settings)
        networks = network_endpoints.settings_of(record)
        if name in networks and container.live:
            raise NotAuthorized(
                f"endpoint with name {record.name} already exists in network {name}"
            )
        network_id = network_id or record.network_ids.get(name, "")
        self._check_identity(record, name, network_id)
        ids = {**record.network_ids, name: services.network_store.id_of(name)}
        new_networks = {**networks, name: settings}
        if not container.live:
            self._save(container, networks=new_networks, network_ids=ids)
            return
        fds = join.open_namespaces(container, ("network",))
        net_fd = fds["network"]
        try:
            endpoint = await self._add(record, name, settings, net_fd, record.endpoints, ids[name])
            try:
                # Saved first: if the engine is killed now, the next one sets the routes.
                self._save_endpoints(
                    container,
                    [*record.endpoints, endpoint],
                    networks=new_networks,
                    network_ids=ids,
                )
                self._move_gateways(container, record, net_fd)
                if record.id not in services.dns_servers:
                    await self._serve_names(record, (endpoint,), net_fd)
                    if record.id in services.dns_servers:
                        provided_files.use_resolver(services, record)
            except BaseException:
                self._undo_connect(container, record, endpoint, net_fd)
                raise
        finally:
            os.close(net_fd)
        provided_files.add_addresses(services, record, endpoint)
        self.emit(record, (endpoint,), "connect")

    def _undo_connect(
        self, container: Container, before: ContainerRecord, endpoint: Endpoint, net_fd: int
    ) -> None:
        """Remove an endpoint from a running container, whose record was ``before``."""
        failed = container.record
        self._services.network_manager.detach(endpoint, delete_interface=True, netns_fd=net_fd)
        self._save_endpoints(container, before.endpoints, networks=before.networks)
        try:
            self._move_gateways(container, failed, net_fd)
        except JaulaError as error:
            log.warning("container %s: %s", container.name, error)
            self._save_endpoints(container, self._current(before.id, before.endpoints))

    def _move_gateways(self, container: Container, before: ContainerRecord, net_fd: int) -> None:
        """Move the default routes and the published ports of a running container.

        ``before`` is its record before its endpoints changed.
        """
        old = network_endpoints.gateways(before.endpoints, network_endpoints.settings_of(before))
        record = container.record
        new = network_endpoints.gateways(record.endpoints, network_endpoints.settings_of(record))
        if new.ids == old.ids:
            return
        self._services.network_manager.set_default_routes(new, net_fd, replace=True)
        self._services.network_manager.unpublish(record.id)
        self._publish(before, new)
        self._save_endpoints(container, self._current(record.id, record.endpoints))

    async def disconnect(self, container: Container, name: str) -> None:
        """Disconnect a container from a network, now if it runs, and for every start.

        :raises JaulaError: when it is not connected, or shares its network namespace.
        """
        services, record = self._services, container.record
        _check_mode(record.resolved.namespaces)
        networks = network_endpoints.settings_of(record)
        if name not in networks:
            raise NotAuthorized(f"container {record.id} is not connected to network {name}")
        new_networks = {key: value for key, value in networks.items() if key != name}
        removed = next((e for e in record.endpoints if e.network == name), None)
        if not container.live or removed is None:
            self._save(container, networks=new_networks)
            return
        remaining = [e for e in record.endpoints if e.network != name]
        # Opened first: this fails if init has ended, and its exit releases what the record has.
        fds = join.open_namespaces(container, ("network",))
        net_fd = fds["network"]
        try:
            # Saved first: if the engine is killed now, the next one sweeps the interface.
            self._save_endpoints(container, remaining, networks=new_networks)
            services.network_manager.detach(removed, delete_interface=True, netns_fd=net_fd)
            if not network_endpoints.needs_resolver(remaining):
                services.dns_servers.close_one(record.id)
            self.emit(record, (removed,), "disconnect")
            try:
                self._move_gateways(container, record, net_fd)
            except JaulaError as error:
                log.warning("container %s: %s", container.name, error)
                self._save_endpoints(container, self._current(record.id, remaining))
        finally:
            os.close(net_fd)

    def _save_endpoints(
        self, container: Container, endpoints: Sequence[Endpoint], **fields: object
    ) -> None:
        self._save(container, **endpoint_fields(endpoints), **fields)

    def _save(self, container: Container, **fields: object) -> None:
        before = container.record
        container.change(**fields)
        try:
            self._services.container_store.save(container)
        except JaulaError:
            if not container.live:
                container.record = before
            raise

    def rename(self, container: Container) -> None:
        """Let the DNS server resolve the new name of a running container."""
        record, networks = container.record, network_endpoints.settings_of(container.record)
        changed = [
            self._services.network_manager.rename(
                e,
                record.name,
                network_endpoints.dns_names(record, networks[e.network]) if e.names else (),
            )
            for e in record.endpoints
        ]
        if changed:
            self._save_endpoints(container, changed)

    # -- exit ----------------------------------------------------------------------------------

    def release(self, record: ContainerRecord) -> None:
        """Release every address and port of a container that has exited."""
        self._services.dns_servers.close_one(record.id)
        for endpoint in record.endpoints:
            self._services.network_manager.detach(endpoint)
        self.emit(record, record.endpoints, "disconnect")


def endpoint_fields(endpoints: Sequence[Endpoint]) -> dict[str, object]:
    """Return the members of a record for the endpoints of a running container."""
    return {
        "endpoint": endpoints[0] if endpoints else None,
        "more_endpoints": tuple(endpoints[1:]),
        "ports": tuple(port for endpoint in endpoints for port in endpoint.ports),
    }


def _name_endpoint(error: JaulaError, endpoint: Endpoint) -> None:
    """Add Docker's words for the endpoint to an error of the port mapper."""
    error.args = (error.message,)
    error.message = (
        "driver failed programming external connectivity on endpoint"
        f" {endpoint.container_name} ({endpoint.endpoint_id}): {error.message}"
    )


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


# -- resources of a start ------------------------------------------------------------------------
