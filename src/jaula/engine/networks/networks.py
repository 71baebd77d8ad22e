"""The use cases of networks: the routes of ``/networks/...``.

Documents and messages are Docker's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine.model.container_store import new_id
from jaula.engine.model.label_filters import (
    Filters,
    check_expressions,
    check_prune,
    has_labels,
    has_match,
    prune_selects,
)
from jaula.engine.networks import (
    config_only,
    create_network,
    network_inspect,
)
from jaula.engine.networks.connect import NetworkConnector
from jaula.engine.networks.network_store import PREDEFINED, network_id
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound
from jaula.network import network_config
from jaula.spec.api_networks import (
    EndpointSettings,
    NetworkConnect,
    NetworkCreate,
    NetworkDisconnect,
)
from jaula.spec.network_record import (
    BINDING_OPTION,
    ICC_OPTION,
    MASQUERADE_OPTION,
    NAME_OPTION,
    NetworkRecord,
    Pool,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

Document = dict[str, Any]
Values = list[str]

_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")  # strconv.ParseBool, in lower case


def _dangling(values: Values) -> bool:
    """Return the value of the filter ``dangling``.

    :raises InvalidRequest: when it is not a truth value.
    """
    texts = [value.lower() for value in values]
    if len(texts) != 1 or texts[0] not in (*_TRUE, *_FALSE):
        raise InvalidRequest(
            'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'
        )
    return texts[0] in _TRUE


class Networks:
    """All networks of an engine."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._connector = NetworkConnector(services)

    # -- queries -------------------------------------------------------------------------------

    def list(self, filters: Filters) -> list[Document]:
        """Return the networks that pass every filter.

        :raises InvalidRequest: when a filter is unknown, or has too many expressions.
        """
        for key in ("name", "id"):
            check_expressions(key, filters.get(key, ()))
        names = (*PREDEFINED, *(network.name for network in self._services.network_store))
        documents = [self._document(name, containers=False) for name in names]
        return [
            document
            for document in documents
            if all(self._fits(document, key, values) for key, values in filters.items())
        ]

    def inspect(self, ref: str) -> Document:
        """Return one network with its containers.

        :raises NotFound: when there is no such network.
        """
        name = self._services.network_store.find(ref)
        document = self._document(name, containers=True)
        if status := self._status(name, document):
            document["Status"] = status
        return document

    def _status(self, name: str, document: Document) -> Document:
        """Return the use of the addresses of each subnet."""
        if not document["IPAM"]["Config"] or document["ConfigOnly"]:
            return {}
        usage = self._services.network_manager.address_usage(name)
        return {
            "IPAM": {
                "Subnets": {
                    subnet: {"IPsInUse": counts.in_use, "DynamicIPsAvailable": counts.available}
                    for subnet, counts in usage.items()
                }
            }
        }

    def _document(self, name: str, *, containers: bool) -> Document:
        network = self._services.network_store.get(name) or self._predefined(name)
        relaxed = self._services.config.publish_past_firewall
        document = network_inspect.document(network, past_firewall=relaxed)
        document["Containers"] = self._containers(name) if containers else {}
        return document

    def _predefined(self, name: str) -> NetworkRecord:
        options: dict[str, str] = {}
        pools: tuple[Pool, ...] = ()
        if name == "bridge":
            addresses = self._services.network_manager.ensure()
            six = self._services.network_manager.addresses6()
            pools = tuple(Pool(str(a.subnet), str(a.gateway)) for a in (addresses, six) if a)
            options = {
                "com.docker.network.bridge.default_bridge": "true",
                ICC_OPTION: "true",
                MASQUERADE_OPTION: "true",
                BINDING_OPTION: self._services.config.host_binding or "0.0.0.0",
                NAME_OPTION: self._services.config.bridge,
            }
        return NetworkRecord(
            name,
            network_id(name),
            self._services.started_at,
            "",
            driver=PREDEFINED[name],
            pools=pools,
            ipv6=len(pools) > 1,
            driver_options=options,
        )

    def _containers(self, name: str) -> Document:
        containers: Document = {}
        for container in self._services.container_store:
            record = container.record
            mode = record.body.host_config.network_mode
            endpoint = next((e for e in record.endpoints if e.network == name), None)
            if endpoint is not None:
                containers[record.id] = {
                    "Name": record.name,
                    "EndpointID": endpoint.endpoint_id,
                    "MacAddress": endpoint.mac,
                    "IPv4Address": f"{endpoint.ipv4}/{endpoint.prefix}" if endpoint.ipv4 else "",
                    "IPv6Address": f"{endpoint.ipv6}/{endpoint.prefix6}" if endpoint.ipv6 else "",
                }
            elif container.live and mode == name and name in ("host", "none"):
                containers[record.id] = {
                    "Name": record.name,
                    "EndpointID": "",
                    "MacAddress": "",
                    "IPv4Address": "",
                    "IPv6Address": "",
                }
        return containers

    def _fits(self, document: Document, key: str, values: Values) -> bool:
        match key:
            case "name":
                return any(has_match(value, document["Name"]) for value in values)
            case "id":
                return any(has_match(value, document["Id"]) for value in values)
            case "driver":
                return document["Driver"] in values
            case "scope":
                return document["Scope"] in values
            case "type":
                for value in values:
                    if value not in ("builtin", "custom"):
                        raise InvalidRequest(f"invalid filter: 'type'='{value}'")
                kind = "builtin" if document["Name"] in PREDEFINED else "custom"
                return kind in values
            case "dangling":
                dangling = _dangling(values)
                used = document["Name"] in PREDEFINED or self._used(document["Name"])
                return dangling != used
            case "label":
                return has_labels(document["Labels"], values)
        raise InvalidRequest(f"invalid filter '{key}'")

    def _used(self, name: str) -> bool:
        return any(
            e.network == name for c in self._services.container_store for e in c.record.endpoints
        )

    # -- create and remove ---------------------------------------------------------------------

    async def create(self, body: NetworkCreate, owner: str = "") -> Document:
        """Create a network of ``owner``, the client.

        :raises Conflict: when the name is in use.
        :raises NotFound: when the config-only network that it names does not exist.
        :raises NotAuthorized: when the name is predefined, or a subnet overlaps another network's.
        """
        services = self._services
        if body.name in PREDEFINED:
            raise NotAuthorized(f"operation is not permitted on predefined {body.name} network")
        create_network.check(body)
        if services.network_store.get(body.name) is not None:
            raise Conflict(f"network with name {body.name} already exists")
        identity = new_id()
        if body.config_only:
            record = config_only.config_record(body, identity)
            return self._made(msgspec.structs.replace(record, owner=owner))
        body = self._with_settings(body)
        if body.driver in ("", "default", "bridge"):
            options = {**services.config.network_options, **body.options}
            body = msgspec.structs.replace(body, options=options)
        body = create_network.with_families(body)
        network = create_network.network(body, identity)
        network = msgspec.structs.replace(network, owner=owner)
        if network.parent:
            engine_parent = services.network_manager.owns_parent(network.parent)
            network = msgspec.structs.replace(network, made_parent=engine_parent)
        elif services.network_manager.has_interface(network.bridge):
            raise NotAuthorized(
                f"cannot create network {identity} ({network.bridge}): the host has an interface"
                " of that name"
            )
        requested = body.ipam.config if body.ipam else ()
        pools = network_config.check_pools(
            [Pool(p.subnet, p.gateway, p.ip_range, p.auxiliary_addresses) for p in requested],
            services.network_manager.subnets(),
            ipv4=network.ipv4,
            ipv6=network.ipv6,
            driver=network.driver,
        )
        plan = msgspec.structs.replace(network, pools=pools, asked_pools=bool(pools))
        services.network_store.save_pending(network)  # without a subnet: the next start sweeps it
        try:
            defined = services.network_manager.define(plan)
        except BaseException:
            services.network_manager.clear(network)
            services.network_store.forget(network)
            raise
        try:
            return self._made(defined)
        except JaulaError:
            services.network_manager.undefine(defined.name)
            raise

    def whole(self, body: NetworkCreate) -> NetworkCreate:
        """Return the request with the settings of the config-only network that it names."""
        try:
            return self._with_settings(body)
        except NotFound:
            return body  # create raises the error

    def _with_settings(self, body: NetworkCreate) -> NetworkCreate:
        source = config_only.config_from(body)
        return (
            config_only.apply_config(body, self._services.network_store.get(source))
            if source
            else body
        )

    def _made(self, network: NetworkRecord) -> Document:
        self._services.network_store.save(network)
        self._emit("create", network)
        return {"Id": network.id, "Warning": ""}

    async def remove(self, ref: str) -> None:
        """Remove a network that has no running containers.

        :raises NotAuthorized: when it is predefined, has containers, or its settings are in use.
        """
        name = self._services.network_store.find(ref)
        network = self._services.network_store.get(name)
        if network is None:
            raise NotAuthorized(f"{name} is a pre-defined network and cannot be removed")
        if self._used(name) or self._services.network_manager.endpoints(name):
            raise NotAuthorized(
                f"error while removing network: network {name} id {network.id} has active endpoints"
            )
        if network.config_only:
            if any(other.config_from == name for other in self._services.network_store):
                raise NotAuthorized(
                    f'error while removing network: configuration network "{name}" is in use'
                )
        else:
            self._services.network_manager.undefine(name)
        self._services.network_store.forget(network)
        self._emit("destroy", network)

    async def prune(
        self, filters: Filters, selects: Callable[[NetworkRecord], bool] = lambda _: True
    ) -> Document:
        """Remove the networks without containers that ``selects`` accepts; config-only ones stay.

        :raises InvalidRequest: when a filter is not ``until``, ``label`` or ``label!``.
        """
        check_prune(filters)
        removed = []
        for network in self._services.network_store:
            if not prune_selects(filters, network.labels, network.created / 1e9):
                continue
            if network.config_only or self._used(network.name) or not selects(network):
                continue
            try:
                await self.remove(network.name)
            except NotAuthorized:
                continue  # a container has just been started on it
            removed.append(network.name)
        self._services.events.emit("network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": removed or None}

    def _emit(self, action: str, network: NetworkRecord) -> None:
        attributes = {"name": network.name, "type": network.driver}
        self._services.events.emit("network", action, network.id, attributes)

    # -- endpoints -----------------------------------------------------------------------------

    async def connect(self, ref: str, body: NetworkConnect) -> None:
        """Connect a container, running or not."""
        name = self._services.network_store.find(ref)
        network_id = self._services.network_store.id_of(name)
        container = self._container(body.container)
        async with container.lock:
            settings = body.endpoint_config or EndpointSettings()
            await self._connector.connect(container, name, settings, network_id)

    async def disconnect(self, ref: str, body: NetworkDisconnect) -> None:
        """Disconnect a container, running or not."""
        name = self._services.network_store.find(ref)
        container = self._container(body.container)
        async with container.lock:
            await self._connector.disconnect(container, name)

    def _container(self, ref: str) -> Container:
        container = self._services.container_store.find(ref)
        if container.id not in self._services.container_store:
            raise NotFound(f"No such container: {ref}")
        return container
