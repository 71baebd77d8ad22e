"""``NetworkSettings`` and ``Ports`` of Docker's documents."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from jaula.engine.networks import endpoints as network_endpoints
from jaula.engine.networks.endpoints import DEFAULT
from jaula.engine.networks.network_store import PREDEFINED
from jaula.engine.networks.port_bindings import parse_port
from jaula.spec.api_networks import EndpointIPAMConfig, EndpointSettings
from jaula.spec.endpoint_record import Endpoint
from jaula.state.container_records import ContainerRecord

Ids = Callable[[str], str]
LISTED = 4096
"""Exposed ports of a container in a list, which every caller of ``ps`` waits for."""


def settings(record: ContainerRecord, id_of: Ids) -> dict[str, Any]:
    """Return ``NetworkSettings`` of inspect, with the members of old clients at its top.

    ``id_of`` returns the id of a network by name. Those members are the default network's.
    """
    endpoint, joined = record.endpoint, record.resolved.namespaces.net.container
    addresses = _addresses(next((e for e in record.endpoints if e.network == DEFAULT), None))
    if _is_new(record) and (settings := network_endpoints.settings_of(record).get(DEFAULT)):
        addresses["MacAddress"] = _requested_mac(record, DEFAULT, settings)
    return {
        "Bridge": "",
        "SandboxID": endpoint.container_id if endpoint else "",
        "SandboxKey": f"/proc/{record.pid}/ns/net" if record.pid and not joined else "",
        "Ports": ports(record),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **addresses,
        "Networks": networks(record, id_of),
    }


def networks(record: ContainerRecord, id_of: Ids) -> dict[str, Any]:
    """Return one entry per network; host and none are networks too."""
    mode = record.body.host_config.network_mode
    if mode.startswith("container:"):
        return {}
    if mode in ("host", "none"):
        return {mode: _entry(record, mode, id_of, EndpointSettings(), None)}
    endpoints = {endpoint.network: endpoint for endpoint in record.endpoints}
    return {
        name: _entry(record, name, id_of, endpoint_settings, endpoints.get(name))
        for name, endpoint_settings in network_endpoints.settings_of(record).items()
    }


def _entry(
    record: ContainerRecord,
    name: str,
    id_of: Ids,
    settings: EndpointSettings,
    endpoint: Endpoint | None,
) -> dict[str, Any]:
    own, new = name not in PREDEFINED, _is_new(record)
    addresses = _addresses(endpoint)
    if new:
        addresses["MacAddress"] = _requested_mac(record, name, settings)
    return {
        "IPAMConfig": _ipam(settings.ipam_config),
        "Links": list(settings.links) or None,
        "Aliases": list(settings.aliases) if own else None,
        "DriverOpts": dict(settings.driver_opts) or None,
        "NetworkID": "" if new else id_of(name),
        **addresses,
        "DNSNames": list(network_endpoints.dns_names(record, settings))
        if own and not new
        else None,
        "GwPriority": settings.gw_priority,
    }


def _is_new(record: ContainerRecord) -> bool:
    """Return whether a container was never started: only its request describes its networks."""
    return not record.started_at and not record.pid


def _requested_mac(record: ContainerRecord, name: str, settings: EndpointSettings) -> str:
    """Return the MAC address that the request has for a network, '' if it has none."""
    first = next(iter(network_endpoints.settings_of(record)), "")
    return settings.mac_address or (record.body.mac_address if name == first else "")


def mac_address(record: ContainerRecord) -> str:
    """Return the MAC address of the request, that of the first network unless the body has one.

    Docker's clients send the address in both places.
    """
    first = next(iter(network_endpoints.settings_of(record).values()), EndpointSettings())
    return record.body.mac_address or first.mac_address


def _ipam(config: EndpointIPAMConfig | None) -> dict[str, str] | None:
    if config is None:
        return None
    addresses = {"IPv4Address": config.ipv4_address, "IPv6Address": config.ipv6_address}
    return {key: value for key, value in addresses.items() if value}


def _addresses(endpoint: Endpoint | None) -> dict[str, Any]:
    return {
        "MacAddress": endpoint.mac if endpoint else "",
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.ipv4 if endpoint else "",
        "IPPrefixLen": endpoint.prefix if endpoint else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.ipv6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.prefix6 if endpoint else 0,
    }


def ports(record: ContainerRecord) -> dict[str, Any]:
    """Return the port map of a running container: exposed ports, null if not published."""
    bindings: dict[str, Any] = {
        f"{number}/{protocol}": None for number, protocol in _exposed_ports(record)
    }
    for port in record.ports:
        key = f"{port.container_port}/{port.protocol}"
        binding = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.host_port)}
        if bindings.get(key) is None:
            bindings[key] = []
        bindings[key].append(binding)
    return bindings


def listed_ports(record: ContainerRecord) -> list[dict[str, Any]]:
    """Return ``Ports`` of the list: all published ports, and at most :data:`LISTED` others."""
    bindings: list[dict[str, Any]] = []
    published = {(port.container_port, port.protocol) for port in record.ports}
    for port in record.ports:
        bindings.append(
            {
                "IP": port.host_ip or "0.0.0.0",
                "PrivatePort": port.container_port,
                "PublicPort": port.host_port,
                "Type": port.protocol,
            }
        )
    for number, protocol in _exposed_ports(record, LISTED):
        if (number, protocol) not in published:
            bindings.append({"PrivatePort": number, "Type": protocol})
    return bindings


def _exposed_ports(record: ContainerRecord, most: int | None = None) -> list[tuple[int, str]]:
    """Return the exposed ports of a running container that has a network for published ports.

    As in Docker, an internal network, macvlan, ipvlan, ``host`` and ``none`` expose no port.
    """
    if not record.pid or not any(e.publishes and not e.internal for e in record.endpoints):
        return []
    return [parse_port(text) for text in islice(record.body.exposed_ports, most)]
