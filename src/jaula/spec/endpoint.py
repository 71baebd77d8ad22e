"""A container's place in a network: what the network gives and the database keeps.

Everything that the host holds for a container (link, address, firewall elements, reserved ports)
can be made again or taken away from this document alone.
"""

from __future__ import annotations

import msgspec

ANY, ANY6 = "0.0.0.0", "::"
"""Every IPv4 and every IPv6 address of the host."""


class PublishedPort(msgspec.Struct, frozen=True):
    """What arrives at the host's port goes to the container's."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class Endpoint(msgspec.Struct, frozen=True):
    """One interface of a container while it runs.

    ``endpoint_id`` is 64 hex digits, new with every attach; ``container_id`` is the name that the
    network knows the container by, which may be that of a sandbox prepared before it.
    """

    network: str
    endpoint_id: str
    container_id: str
    container_name: str
    ipv4: str
    prefix: int
    gateway: str
    mac: str
    host_interface: str
    interface: str = "eth0"
    ports: tuple[PublishedPort, ...] = ()
    ipv6: str = ""  # empty: the interface has no IPv6
    prefix6: int = 0
    gateway6: str = ""
    names: tuple[str, ...] = ()  # what other containers of the network may call it
    links: dict[str, str] = {}  # what this container alone calls others: their names by alias
    internal: bool = False  # the network leads nowhere else
    on_link: bool = False  # every address is reached on the interface, without a gateway
    publishes: bool = True  # ports of the host can lead here
