"""One network on this host: its addresses and its endpoints.

What an endpoint is linked to is told by the kinds of segment: :mod:`jaula.network.drivers.bridge` and
:mod:`jaula.network.drivers.macvlan`. Not thread safe: the manager's lock is held by whoever calls. Raises
``OSError`` and ``JaulaError`` as the kernel and the firewall give them; on failure of
:meth:`connect` nothing is left.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network

import msgspec

from jaula.errors import InvalidRequest, JaulaError
from jaula.network import endpoint_config
from jaula.network.ipam import Addresses, mac_from_address
from jaula.spec.endpoint import Endpoint

PORT_PREFIX = "jl"
"""How the names of host ends of containers begin."""

OtherSubnets = Callable[[], Sequence[IPv4Network]]
"""The subnets of other networks."""


class EndpointRequest(msgspec.Struct, frozen=True):
    """What is asked for an endpoint; '' and None leave the choice to the network."""

    container_id: str
    container_name: str = ""
    ip: str | None = None
    ip6: str | None = None
    mac: str | None = None
    interface: str = "eth0"
    default_route: bool = True
    names: tuple[str, ...] = ()
    links: dict[str, str] = {}


class Network(ABC):
    """One network. ``endpoints`` are by container, ``told`` is for the operator.

    ``publishes`` says whether ports of the host can lead to its containers.
    """

    publishes = False

    def __init__(self, network: str, *, internal: bool, addresses6: Addresses | None) -> None:
        self.network = network
        self.addresses: Addresses | None = None
        self.addresses6 = addresses6
        self.endpoints: dict[str, Endpoint] = {}
        self.told: list[str] = []
        self._internal = internal

    @property
    @abstractmethod
    def name(self) -> str:
        """That of the host's link."""

    @abstractmethod
    def ensure(self) -> Addresses:
        """Make what the host has of the network if it is not there; cheap when it is."""

    @abstractmethod
    def take_down(self) -> None:
        """Remove what the host has of the network."""

    @abstractmethod
    def close(self) -> None:
        """Give up sockets; what was set up stays."""

    @abstractmethod
    def _link(self, endpoint: Endpoint, netns_fd: int, *, default_route: bool) -> Endpoint:
        """Give the namespace its interface; the endpoint as it is then. Nothing stays if it fails.

        :raises OSError: the kernel refused.
        """

    @abstractmethod
    def _dismiss(self, endpoint: Endpoint) -> None:
        """Take back an endpoint's right to speak."""

    @abstractmethod
    def delete_interface(self, endpoint: Endpoint, netns_fd: int | None) -> None:
        """Remove the interface of a container that lives on, in the namespace ``netns_fd``."""

    @abstractmethod
    def sweep(self) -> list[str]:
        """Remove links of the host that belong to no endpoint; their names."""

    def connect(self, joining: EndpointRequest, netns_fd: int) -> Endpoint:
        """Give a namespace an interface on this network."""
        addresses = self.ensure()
        if joining.ip6 and self.addresses6 is None:
            raise InvalidRequest(
                f"network {self.network} has no IPv6 for the address {joining.ip6}"
            )
        address = addresses.allocate(joining.ip or None)
        own6 = ""
        try:
            if self.addresses6 is not None:
                own6 = str(self.addresses6.allocate(joining.ip6 or None))
        except JaulaError:
            addresses.release(str(address))
            raise
        endpoint_id = os.urandom(32).hex()
        endpoint = Endpoint(
            self.network,
            endpoint_id,
            joining.container_id,
            joining.container_name or joining.container_id[:12],
            str(address),
            addresses.subnet.prefixlen,
            "" if self._internal else str(addresses.gateway),
            joining.mac or mac_from_address(address),
            f"{PORT_PREFIX}{endpoint_id[:10]}",
            joining.interface,
            ipv6=own6,
            prefix6=self.addresses6.subnet.prefixlen if self.addresses6 else 0,
            gateway6=str(self.addresses6.gateway) if self.addresses6 and not self._internal else "",
            names=joining.names,
            links=joining.links,
            internal=self._internal,
            publishes=self.publishes,
        )
        try:
            endpoint = self._link(endpoint, netns_fd, default_route=joining.default_route)
        except (OSError, JaulaError) as exc:
            self._release(endpoint)
            if isinstance(exc, JaulaError):
                raise
            raise JaulaError(
                f"failed to set up network {self.network} for {endpoint.container_name}: {exc}"
            ) from exc
        self.endpoints[joining.container_id] = endpoint
        return endpoint

    def disconnect(self, endpoint: Endpoint) -> None:
        """Take back address and right to speak; its ports were taken back before."""
        del self.endpoints[endpoint.container_id]
        if self.addresses is not None:
            self._dismiss(endpoint)
            self._release(endpoint)

    def adopt(self, endpoint: Endpoint) -> None:
        """Hold the addresses of an endpoint that a former engine has made."""
        addresses = self.ensure()
        addresses.allocate(endpoint.ipv4)
        if endpoint.ipv6 and self.addresses6 is not None:
            try:
                self.addresses6.allocate(endpoint.ipv6)
            except JaulaError:
                addresses.release(endpoint.ipv4)
                raise

    def _release(self, endpoint: Endpoint) -> None:
        if self.addresses is not None:
            self.addresses.release(endpoint.ipv4)
        if self.addresses6 is not None and endpoint.ipv6:
            self.addresses6.release(endpoint.ipv6)

    def set_default_route(self, endpoint: Endpoint, netns_fd: int) -> None:
        """Make an interface of a container the one of its default routes, if it has none."""
        endpoint_config.set_default_route(endpoint, netns_fd)
