"""The network part of Docker's documents: ``NetworkSettings``, ``Ports``."""

from __future__ import annotations

from typing import Any

from jaula.engine.networks import network_id
from jaula.engine.ports import parse_port
from jaula.state.records import ContainerRecord


def settings(record: ContainerRecord) -> dict[str, Any]:
    """``NetworkSettings`` of inspect, with the fields of old clients at its top."""
    endpoint = record.endpoint
    return {
        "Bridge": "",
        "SandboxID": endpoint.container_id if endpoint else "",
        "SandboxKey": f"/proc/{record.pid}/ns/net" if record.pid else "",
        "Ports": ports(record),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": endpoint.ipv4 if endpoint else "",
        "IPPrefixLen": endpoint.prefix if endpoint else 0,
        "IPv6Gateway": "",
        "MacAddress": endpoint.mac if endpoint else "",
        "Networks": networks(record),
    }


def networks(record: ContainerRecord) -> dict[str, Any]:
    """One entry for each network; the host's and none are networks too."""
    mode = record.body.host_config.network_mode
    if mode.startswith("container:"):
        return {}
    name = "bridge" if mode in ("", "default") else mode
    endpoint = record.endpoint
    return {
        name: {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "MacAddress": endpoint.mac if endpoint else "",
            "DriverOpts": None,
            "NetworkID": network_id(name),
            "EndpointID": endpoint.endpoint_id if endpoint else "",
            "Gateway": endpoint.gateway if endpoint else "",
            "IPAddress": endpoint.ipv4 if endpoint else "",
            "IPPrefixLen": endpoint.prefix if endpoint else 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": None,
        }
    }


def ports(record: ContainerRecord) -> dict[str, Any]:
    """The port map while it runs: exposed ports, with null where they are not published."""
    if not record.pid:
        return {}
    found: dict[str, Any] = {}
    for text in record.body.exposed_ports:
        number, protocol = parse_port(text)
        found[f"{number}/{protocol}"] = None
    for port in record.ports:
        key = f"{port.container_port}/{port.protocol}"
        binding = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.host_port)}
        found[key] = [*(found.get(key) or ()), binding]
    return found


def listed_ports(record: ContainerRecord) -> list[dict[str, Any]]:
    """``Ports`` of the list."""
    found: list[dict[str, Any]] = []
    published = {(port.container_port, port.protocol) for port in record.ports}
    for port in record.ports:
        found.append(
            {
                "IP": port.host_ip or "0.0.0.0",
                "PrivatePort": port.container_port,
                "PublicPort": port.host_port,
                "Type": port.protocol,
            }
        )
    if record.pid:
        for text in record.body.exposed_ports:
            number, protocol = parse_port(text)
            if (number, protocol) not in published:
                found.append({"PrivatePort": number, "Type": protocol})
    return found
