"""A container's place in a network, as a record that the engine keeps.

Everything that the host holds for a container (link, address, firewall elements, reserved ports)
can be made again or taken away from this record alone.
"""

from __future__ import annotations

import msgspec


class PortRequest(msgspec.Struct, frozen=True):
    """A port to publish. ``host_port`` None asks for a free one.

    ``host_ip`` '' is every IPv4 address of the host. With ``host_port_end`` the first free port
    of that inclusive range is taken.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None


class PortBinding(msgspec.Struct, frozen=True):
    """A published port: what arrives at the host's goes to the container's."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class Endpoint(msgspec.Struct, frozen=True):
    """One interface of a container. ``endpoint_id`` is 64 hex digits, new with every attach."""

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
    ports: tuple[PortBinding, ...] = ()
