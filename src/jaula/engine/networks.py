"""The use cases of networks: what ``/networks/...`` asks for. Documents and words are Docker's."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from jaula.engine.connecting import Connector
from jaula.engine.filters import moment
from jaula.engine.names import new_id
from jaula.engine.network_registry import PREDEFINED, network_id
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound, Unsupported
from jaula.logs import timestamp
from jaula.network import plans
from jaula.network.manager import check_bridge_name
from jaula.spec.api import EndpointSettings, NetworkConnect, NetworkCreate, NetworkDisconnect
from jaula.spec.network import (
    BINDING_OPTION,
    ICC_OPTION,
    MASQUERADE_OPTION,
    MTU_OPTION,
    NAME_OPTION,
    Network,
    Pool,
)

if TYPE_CHECKING:
    from jaula.engine.container import Container
    from jaula.engine.parts import Parts

Filters = dict[str, list[str]]
Document = dict[str, Any]
Values = list[str]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")  # strconv.ParseBool, in lower case


class Networks:
    """All networks of an engine."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._connector = Connector(parts)

    # -- looking -----------------------------------------------------------------------------

    def list(self, filters: Filters) -> list[Document]:
        """Those that pass every filter.

        :raises InvalidRequest: a filter that there is not.
        """
        names = (*PREDEFINED, *(network.name for network in self._parts.networks))
        found = [self._document(name, containers=False) for name in names]
        return [
            document
            for document in found
            if all(self._fits(document, key, values) for key, values in filters.items())
        ]

    def inspect(self, ref: str) -> Document:
        """One network with its containers.

        :raises NotFound: no such network.
        """
        return self._document(self._parts.networks.find(ref), containers=True)

    def _document(self, name: str, *, containers: bool) -> Document:
        network = self._parts.networks.get(name)
        found = self._predefined(name) if network is None else _document(network)
        found["Containers"] = self._members(name) if containers else {}
        return found

    def _predefined(self, name: str) -> Document:
        options: dict[str, str] = {}
        pools: tuple[Pool, ...] = ()
        if name == "bridge":
            addresses = self._parts.network.ensure()
            pools = (Pool(str(addresses.subnet), str(addresses.gateway)),)
            options = {
                "com.docker.network.bridge.default_bridge": "true",
                ICC_OPTION: "true",
                MASQUERADE_OPTION: "true",
                BINDING_OPTION: "0.0.0.0",
                NAME_OPTION: self._parts.config.bridge,
            }
        network = Network(
            name,
            network_id(name),
            self._parts.started_at,
            "",
            driver=PREDEFINED[name],
            pools=pools,
            driver_options=options,
        )
        return _document(network)

    def _members(self, name: str) -> Document:
        found: Document = {}
        for container in self._parts.registry:
            record = container.record
            mode = record.body.host_config.network_mode
            endpoint = next((e for e in record.endpoints if e.network == name), None)
            if endpoint is not None:
                found[record.id] = {
                    "Name": record.name,
                    "EndpointID": endpoint.endpoint_id,
                    "MacAddress": endpoint.mac,
                    "IPv4Address": f"{endpoint.ipv4}/{endpoint.prefix}",
                    "IPv6Address": f"{endpoint.ipv6}/{endpoint.prefix6}" if endpoint.ipv6 else "",
                }
            elif container.live and mode == name and name in ("host", "none"):
                found[record.id] = {
                    "Name": record.name,
                    "EndpointID": "",
                    "MacAddress": "",
                    "IPv4Address": "",
                    "IPv6Address": "",
                }
        return found

    def _fits(self, document: Document, key: str, values: Values) -> bool:
        match key:
            case "name":
                return any(value in document["Name"] for value in values)
            case "id":
                return any(document["Id"].startswith(value) for value in values)
            case "driver":
                return document["Driver"] in values
            case "scope":
                return document["Scope"] in values
            case "type":
                kind = "builtin" if document["Name"] in PREDEFINED else "custom"
                return kind in values
            case "dangling":
                wanted = any(value.lower() in _TRUE for value in values)
                used = document["Name"] in PREDEFINED or self._used(document["Name"])
                return wanted != used
            case "label":
                return all(_has_label(document["Labels"], value) for value in values)
        raise InvalidRequest(f"invalid filter '{key}'")

    def _used(self, name: str) -> bool:
        return any(e.network == name for c in self._parts.registry for e in c.record.endpoints)

    # -- making and removing -----------------------------------------------------------------

    async def create(self, body: NetworkCreate) -> Document:
        """Make a bridge network.

        :raises Conflict: the name is in use.
        :raises NotAuthorized: the name is a predefined one's, or a subnet overlaps another's.
        """
        parts = self._parts
        if body.name in PREDEFINED:
            raise NotAuthorized(f"operation is not permitted on predefined {body.name} network")
        _check(body)
        if parts.networks.get(body.name) is not None:
            raise Conflict(f"network with name {body.name} already exists")
        identity = new_id()
        network = _network(body, identity)
        if self._parts.network.has_interface(network.bridge):
            raise NotAuthorized(
                f"cannot create network {identity} ({network.bridge}): the host has an interface"
                " of that name"
            )
        asked = body.ipam.config if body.ipam else ()
        pools = plans.check_pools(
            [Pool(p.subnet, p.gateway, p.ip_range, p.auxiliary_addresses) for p in asked],
            parts.network.subnets(),
            ipv6=body.enable_ipv6,
        )
        plan = _replace(network, pools=pools, asked_pools=bool(pools))
        parts.networks.note(network)  # without a subnet: if this is cut off, the start sweeps it
        try:
            made = parts.network.define(plan)
        except BaseException:
            parts.network.clear(network)
            parts.networks.forget(network)
            raise
        try:
            parts.networks.save(made)
        except JaulaError:
            parts.network.undefine(made.name)
            raise
        self._emit("create", made)
        return {"Id": identity, "Warning": ""}

    async def remove(self, ref: str) -> None:
        """Remove a network that no running container is on.

        :raises NotAuthorized: it is predefined, or has containers.
        """
        name = self._parts.networks.find(ref)
        network = self._parts.networks.get(name)
        if network is None:
            raise NotAuthorized(f"{name} is a pre-defined network and cannot be removed")
        if self._used(name) or self._parts.network.endpoints(name):
            raise NotAuthorized(
                f"error while removing network: network {name} id {network.id} has active endpoints"
            )
        self._parts.network.undefine(name)
        self._parts.networks.forget(network)
        self._emit("destroy", network)

    async def prune(self, filters: Filters) -> Document:
        """Remove every user's network that no running container is on.

        :raises InvalidRequest: another filter than ``until``, ``label`` and ``label!``.
        """
        removed = []
        for network in self._parts.networks:
            if not _prunes(network, filters) or self._used(network.name):
                continue
            try:
                await self.remove(network.name)
            except NotAuthorized:
                continue  # a container is just starting on it
            removed.append(network.name)
        self._parts.events.emit("network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": removed or None}

    def _emit(self, action: str, network: Network) -> None:
        about = {"name": network.name, "type": network.driver}
        self._parts.events.emit("network", action, network.id, about)

    # -- members -----------------------------------------------------------------------------

    async def connect(self, ref: str, body: NetworkConnect) -> None:
        """Connect a container, running or not."""
        name = self._parts.networks.find(ref)
        container = self._container(body.container)
        async with container.lock:
            settings = body.endpoint_config or EndpointSettings()
            await self._connector.connect(container, name, settings)

    async def disconnect(self, ref: str, body: NetworkDisconnect) -> None:
        """Take a container off a network, running or not."""
        name = self._parts.networks.find(ref)
        container = self._container(body.container)
        async with container.lock:
            await self._connector.disconnect(container, name)

    def _container(self, ref: str) -> Container:
        container = self._parts.registry.find(ref)
        if container.id not in self._parts.registry:
            raise NotFound(f"No such container: {ref}")
        return container


def _document(network: Network) -> Document:
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": timestamp.text(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None if network.name in PREDEFINED else {},
            "Config": [_pool(pool) for pool in network.pools],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": dict(network.driver_options),
        "Labels": dict(network.labels),
    }


def _pool(pool: Pool) -> Document:
    found: Document = {"Subnet": pool.subnet}
    if pool.ip_range:
        found["IPRange"] = pool.ip_range
    found["Gateway"] = pool.gateway
    if pool.auxiliary:
        found["AuxiliaryAddresses"] = dict(pool.auxiliary)
    return found


def _has_label(labels: dict[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    found = labels.get(name)
    return found is not None and (not equals or found == value)


def _prunes(network: Network, filters: Filters) -> bool:
    for key, values in filters.items():
        match key:
            case "until":
                if any(network.created > moment(value) * 1e9 for value in values):
                    return False
            case "label":
                if not all(_has_label(network.labels, value) for value in values):
                    return False
            case "label!":
                if any(_has_label(network.labels, value) for value in values):
                    return False
            case _:
                raise InvalidRequest(f"invalid filter '{key}'")
    return True


def _check(body: NetworkCreate) -> None:
    """Refuse what this engine has no network for."""
    if not _NAME.fullmatch(body.name):
        raise InvalidRequest(
            f"invalid network name ({body.name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            if body.name
            else "network name cannot be empty"
        )
    if body.driver in ("macvlan", "ipvlan"):
        raise Unsupported(
            f"cannot create network {body.name}: the driver {body.driver} is not there",
            hint="networks are bridges; leave --driver out",
        )
    if body.driver == "overlay" or body.scope == "swarm" or body.ingress:
        raise NotAuthorized(
            "This node is not a swarm manager: a network of that kind needs one",
        )
    if body.driver in ("host", "null"):
        raise NotAuthorized(f'only one instance of "{body.driver}" network is allowed')
    if body.driver not in ("", "default", "bridge"):
        raise NotFound(f'plugin "{body.driver}" not found')
    if body.ipam is not None and body.ipam.driver not in ("", "default"):
        raise NotFound(f'IPAM driver "{body.ipam.driver}" not found')
    if body.config_only:
        raise Unsupported(f"cannot create network {body.name}: --config-only is for swarms")


def _network(body: NetworkCreate, identity: str) -> Network:
    options = body.options
    return Network(
        body.name,
        identity,
        time.time_ns(),
        check_bridge_name(options.get(NAME_OPTION) or f"br-{identity[:12]}"),
        ipv6=body.enable_ipv6,
        internal=body.internal,
        attachable=body.attachable,
        icc=_flag(options, ICC_OPTION),
        masquerade=_flag(options, MASQUERADE_OPTION),
        host_binding=_binding(options.get(BINDING_OPTION, "")),
        mtu=_mtu(options.get(MTU_OPTION, "")),
        driver_options=options,
        labels=body.labels,
    )


def _flag(options: dict[str, str], name: str) -> bool:
    text = options.get(name, "true").lower()
    if text not in _TRUE + _FALSE:
        raise InvalidRequest(f"invalid value for {name}: {options[name]!r} is not true or false")
    return text in _TRUE


def _binding(text: str) -> str:
    from ipaddress import AddressValueError, IPv4Address

    try:
        return str(IPv4Address(text)) if text else ""
    except AddressValueError as error:
        raise InvalidRequest(f"invalid value for {BINDING_OPTION}: {error}") from None


def _mtu(text: str) -> int:
    if not text:
        return 0
    if not text.isdigit() or not (text == "0" or 68 <= int(text) <= 65535):
        raise InvalidRequest(f"invalid value for {MTU_OPTION}: {text!r}")
    return int(text)


def _replace(network: Network, **fields: object) -> Network:
    import msgspec

    return msgspec.structs.replace(network, **fields)
