"""A container's endpoint in a network, as the database stores it.

Everything that the host holds for an endpoint (link, address, firewall elements, allocated ports)
can be recreated or removed from this document alone.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

ANY, ANY6 = "0.0.0.0", "::"
"""All IPv4 and all IPv6 addresses of the host."""


class PublishedPort(msgspec.Struct, frozen=True):
    """A port of the host whose traffic is forwarded to a container's port."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class Endpoint(msgspec.Struct, frozen=True):
    """One network interface of a running container.

    ``ipv4`` and ``ipv6`` are empty if the interface has no address of that family.
    ``endpoint_id`` is 64 hex digits, new for every attach. ``container_id`` is the id by which the
    network knows the container; it may be that of a sandbox created before the container.
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
    ipv6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    names: tuple[str, ...] = ()  # DNS names for the other containers of the network
    links: dict[str, str] = {}  # container name by alias, for this container alone
    internal: bool = False  # the network has no route to the outside
    on_link: bool = False  # every address is on-link, without a gateway
    publishes: bool = True  # ports of the host can be published to it
    egress: tuple[str, ...] | None = None  # destinations; None: any (jaula.spec.egress)
    listen: tuple[str, ...] | None = None  # ports; None: any (jaula.spec.listen)

    @property
    def routes_ipv4(self) -> bool:
        """Whether it can have the default route of IPv4."""
        return bool(self.gateway or (self.on_link and self.ipv4))

    @property
    def routes_ipv6(self) -> bool:
        """Whether it can have the default route of IPv6."""
        return bool(self.gateway6 or (self.on_link and self.ipv6))


class Gateways(NamedTuple):
    """The endpoints of a container that have its default routes, by address family."""

    ipv4: Endpoint | None = None
    ipv6: Endpoint | None = None

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of the endpoints; '' if there is none."""
        return (
            self.ipv4.endpoint_id if self.ipv4 else "",
            self.ipv6.endpoint_id if self.ipv6 else "",
        )

    def publishing(self) -> Gateways:
        """Return the endpoints to which ports of the host can be published."""
        return Gateways(*(e if e is not None and e.publishes else None for e in self))
