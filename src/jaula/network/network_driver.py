"""Base of the network drivers: one network on this host, its addresses and its endpoints.

The drivers are :mod:`jaula.network.drivers.bridge` and :mod:`jaula.network.drivers.macvlan`.
Not thread safe: the caller holds the manager's lock. ``OSError`` and ``JaulaError`` of the kernel
and the firewall pass through.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, ip_address

import msgspec

from jaula.errors import InvalidRequest, JaulaError
from jaula.network.ipam import Addresses, mac_from_address, random_mac
from jaula.spec.endpoint_record import Endpoint

PORT_PREFIX = "jl"
"""Prefix of the names of the host's ends of containers' veth pairs."""

OtherSubnets = Callable[[], Sequence[IPv4Network]]
"""Returns the subnets of the engine's other networks."""

OnRepair = Callable[[str, str], None]
"""Reports that a kind of object, and its name, was removed by another program and made again."""


def no_report(kind: str, name: str) -> None:
    """Report nothing."""


class EndpointRequest(msgspec.Struct, frozen=True):
    """Options of an endpoint. The network chooses what is '' or None."""

    container_id: str
    container_name: str = ""
    ip: str | None = None
    ip6: str | None = None
    mac: str | None = None
    interface: str = "eth0"
    default_route: bool = True
    names: tuple[str, ...] = ()
    links: dict[str, str] = {}
    egress: tuple[str, ...] | None = None
    listen: tuple[str, ...] | None = None
    carrier: bool = True  # packets arrive from the beginning


class MacAddressInUse(JaulaError):
    """Another interface of the parent has the MAC address.

    The kernel deletes the interface of a container some milliseconds after its last process.
    """


class Network(ABC):
    """One network. ``endpoints`` is keyed by container id; ``warnings`` are for the operator.

    ``network`` is the network's name. ``publishes`` is True if host ports can be published to its
    containers. ``is_up`` says that it is set up on the host. ``addresses`` are those of IPv4, None
    before a subnet is chosen and for a network without IPv4. ``restricts`` is True if the
    network can enforce egress and listen lists.
    """

    publishes = False
    restricts = False

    def __init__(self, network: str, *, internal: bool, addresses6: Addresses | None) -> None:
        self.network = network
        self.is_up = False
        self.addresses: Addresses | None = None
        self.addresses6 = addresses6
        self.endpoints: dict[str, Endpoint] = {}
        self.warnings: list[str] = []
        self._internal = internal

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the network's interface on the host."""

    @abstractmethod
    def ensure(self) -> None:
        """Set up the network on the host unless it is set up."""

    @abstractmethod
    def take_down(self) -> None:
        """Remove the network from the host."""

    @abstractmethod
    def close(self) -> None:
        """Close the sockets; what is set up on the host stays."""

    @abstractmethod
    def _link(
        self, endpoint: Endpoint, netns_fd: int, *, default_route: bool, carrier: bool
    ) -> Endpoint:
        """Create the endpoint's interface in a network namespace. Return the final endpoint.

        Without ``carrier`` the host's end of the link stays down, if it has one.

        Nothing is left after a failure.

        :raises OSError: when the kernel refuses a request.
        """

    @abstractmethod
    def _dismiss(self, endpoint: Endpoint) -> None:
        """Remove an endpoint's anti-spoofing entry, so that it can send no more."""

    @abstractmethod
    def delete_interface(self, endpoint: Endpoint, netns_fd: int | None) -> None:
        """Delete the interface of a container that keeps running; its namespace is ``netns_fd``."""

    @abstractmethod
    def orphaned_ports(self) -> list[str]:
        """Return the interfaces of the host that belong to no endpoint."""

    @abstractmethod
    def delete_port(self, name: str) -> bool:
        """Delete an interface of the host. Return whether it existed."""

    def restrict(self, endpoint: Endpoint) -> None:
        """Enforce the lists of an endpoint.

        :raises InvalidRequest: when the network cannot enforce them.
        :raises Unsupported: when this kernel cannot.
        """
        _check_lists(self, endpoint.egress, endpoint.listen, endpoint.container_name)

    def sweep(self) -> list[str]:
        """Delete interfaces of the host that belong to no endpoint. Return their names."""
        return [name for name in self.orphaned_ports() if self.delete_port(name)]

    def connect(self, request: EndpointRequest, netns_fd: int) -> Endpoint:
        """Create an endpoint and its interface in a network namespace.

        Nothing is left after a failure.

        :raises InvalidRequest: when an address of a family is requested that the network lacks.
        :raises JaulaError: when an address is not available or the kernel refuses a request.
        """
        name = request.container_name or request.container_id[:12]
        _check_lists(self, request.egress, request.listen, name)
        self.ensure()
        ipv4 = _allocate(self.addresses, request.ip, self.network, 4)
        try:
            ipv6 = _allocate(self.addresses6, request.ip6, self.network, 6)
        except JaulaError:
            if self.addresses is not None:
                self.addresses.release(ipv4)
            raise
        endpoint_id = os.urandom(32).hex()
        own = ip_address(ipv4 or ipv6) if ipv4 or ipv6 else None
        endpoint = Endpoint(
            self.network,
            endpoint_id,
            request.container_id,
            request.container_name or request.container_id[:12],
            ipv4,
            self.addresses.subnet.prefixlen if self.addresses else 0,
            self._gateway(self.addresses),
            request.mac or (mac_from_address(own) if own else random_mac()),
            f"{PORT_PREFIX}{endpoint_id[:10]}",
            request.interface,
            ipv6=ipv6,
            prefix6=self.addresses6.subnet.prefixlen if self.addresses6 else 0,
            gateway6=self._gateway(self.addresses6),
            names=request.names,
            links=request.links,
            internal=self._internal,
            publishes=self.publishes,
            egress=request.egress,
            listen=request.listen,
        )
        try:
            endpoint = self._link(
                endpoint,
                netns_fd,
                default_route=request.default_route,
                carrier=request.carrier,
            )
        except (OSError, JaulaError) as exc:
            self._release(endpoint)
            if isinstance(exc, JaulaError):
                raise
            raise JaulaError(
                f"failed to set up network {self.network} for {endpoint.container_name}: {exc}"
            ) from exc
        self.endpoints[request.container_id] = endpoint
        return endpoint

    def _gateway(self, addresses: Addresses | None) -> str:
        return "" if self._internal or addresses is None else str(addresses.gateway)

    def disconnect(self, endpoint: Endpoint) -> None:
        """Release the addresses and the anti-spoofing entry. The caller has released the ports."""
        del self.endpoints[endpoint.container_id]
        if self.is_up:
            self._dismiss(endpoint)
            self._release(endpoint)

    def adopt(self, endpoint: Endpoint) -> None:
        """Allocate the addresses of an endpoint that a former engine created."""
        self.ensure()
        if endpoint.ipv4 and self.addresses is not None:
            self.addresses.allocate(endpoint.ipv4)
        if endpoint.ipv6 and self.addresses6 is not None:
            try:
                self.addresses6.allocate(endpoint.ipv6)
            except JaulaError:
                if endpoint.ipv4 and self.addresses is not None:
                    self.addresses.release(endpoint.ipv4)
                raise

    def _release(self, endpoint: Endpoint) -> None:
        if self.addresses is not None and endpoint.ipv4:
            self.addresses.release(endpoint.ipv4)
        if self.addresses6 is not None and endpoint.ipv6:
            self.addresses6.release(endpoint.ipv6)


def _check_lists(
    network: Network,
    egress: tuple[str, ...] | None,
    listen: tuple[str, ...] | None,
    container: str,
) -> None:
    subject = (
        "egress list" if egress is not None else "listen list" if listen is not None else ""
    )  # fmt: skip
    if subject and not network.restricts:
        raise InvalidRequest(
            f"network {network.network} cannot enforce the {subject} of {container}: its packets"
            " bypass the host's firewall",
            hint="use a network of the driver bridge",
        )


def _allocate(addresses: Addresses | None, requested: str | None, network: str, family: int) -> str:
    """Return the requested address or a free one; '' if the network lacks the address family."""
    if addresses is not None:
        return str(addresses.allocate(requested or None))
    if requested:
        raise InvalidRequest(
            f"network {network} has no IPv{family}, so {requested} cannot be assigned"
        )
    return ""
