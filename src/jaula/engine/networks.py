"""The networks that there are: the default bridge, ``host`` and ``none``, as Docker shows them.

Networks of a user's own are not part of this engine yet; what asks for one is told so.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from jaula.errors import InvalidRequest, NotAuthorized, NotFound, Unsupported
from jaula.logs import timestamp
from jaula.spec.api import NetworkConnect, NetworkCreate, NetworkDisconnect

if TYPE_CHECKING:
    from jaula.engine.parts import Parts

Filters = dict[str, list[str]]
_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}


def network_id(name: str) -> str:
    """The id of a predefined network: always the same, so that it survives everything."""
    return hashlib.sha256(f"jaula network {name}".encode()).hexdigest()


class Networks:
    """Documents of the predefined networks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list(self, filters: Filters) -> list[dict[str, Any]]:
        """Those that pass the filters ``name``, ``id``, ``driver``, ``scope``, ``type``.

        :raises InvalidRequest: another filter.
        """
        documents = [self._document(name, containers=False) for name in _DRIVERS]
        return [d for d in documents if all(_fits(d, k, v) for k, v in filters.items())]

    def inspect(self, ref: str) -> dict[str, Any]:
        """One network with its containers.

        :raises NotFound: no such network.
        """
        for name in _DRIVERS:
            if ref == name or (ref and network_id(name).startswith(ref)):
                return self._document(name, containers=True)
        raise NotFound(f"network {ref} not found")

    async def create(self, body: NetworkCreate) -> dict[str, Any]:
        """Not there yet."""
        if body.name in _DRIVERS:
            raise NotAuthorized(f"operation is not permitted on predefined {body.name} network")
        raise Unsupported(
            f"cannot create network {body.name}: this engine has the networks"
            f" {', '.join(_DRIVERS)} only"
        )

    async def remove(self, ref: str) -> None:
        """Predefined networks stay."""
        name = self.inspect(ref)["Name"]
        raise NotAuthorized(f"{name} is a pre-defined network and cannot be removed")

    async def connect(self, ref: str, body: NetworkConnect) -> None:
        """Not there yet."""
        self.inspect(ref)
        raise Unsupported(
            f"cannot connect {body.container} to {ref}: give --network when it is made"
        )

    async def disconnect(self, ref: str, body: NetworkDisconnect) -> None:
        """Not there yet."""
        self.inspect(ref)
        raise Unsupported(f"cannot disconnect {body.container} from {ref} while it is there")

    async def prune(self, filters: Filters) -> dict[str, Any]:
        """Nothing can be unused that nobody can make."""
        return {"NetworksDeleted": None}

    def _document(self, name: str, *, containers: bool) -> dict[str, Any]:
        config = self._parts.config
        pools: list[dict[str, str]] = []
        options: dict[str, str] = {}
        if name == "bridge":
            addresses = self._parts.network.ensure()
            pools = [{"Subnet": str(addresses.subnet), "Gateway": str(addresses.gateway)}]
            options = {
                "com.docker.network.bridge.default_bridge": "true",
                "com.docker.network.bridge.enable_icc": "true",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
                "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
                "com.docker.network.bridge.name": config.bridge,
            }
        return {
            "Name": name,
            "Id": network_id(name),
            "Created": timestamp.text(self._parts.started_at),
            "Scope": "local",
            "Driver": _DRIVERS[name],
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": pools},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": self._members(name) if containers else {},
            "Options": options,
            "Labels": {},
        }

    def _members(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for container in self._parts.registry:
            record = container.record
            mode = record.body.host_config.network_mode
            endpoint = record.endpoint
            if endpoint is not None and endpoint.network == name:
                found[record.id] = {
                    "Name": record.name,
                    "EndpointID": endpoint.endpoint_id,
                    "MacAddress": endpoint.mac,
                    "IPv4Address": f"{endpoint.ipv4}/{endpoint.prefix}",
                    "IPv6Address": "",
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


def _fits(document: dict[str, Any], key: str, values: list[str]) -> bool:
    match key:
        case "name":
            return any(value in document["Name"] for value in values)
        case "id":
            return any(document["Id"].startswith(value) for value in values)
        case "driver":
            return document["Driver"] in values
        case "scope":
            return "local" in values
        case "type":
            return "builtin" in values
        case "dangling":
            return any(value in ("false", "0") for value in values)
        case "label":
            return not values
    raise InvalidRequest(f"invalid filter '{key}'")
