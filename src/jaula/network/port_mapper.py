"""Published ports: requests for host ports, their allocator, and the port mapper that uses both.

The firewall translates a published port, so no program has to listen on it. The engine still binds
a socket to it. Another program that wants the port gets EADDRINUSE, and a port that another program
uses is detected before the firewall redirects it. Messages are Docker's, since clients match them.

Facts about bind(2): two TCP sockets with SO_REUSEADDR can bind the same port while neither listens.
The option is needed to bind a port that has connections of a former owner in TIME_WAIT. So the
first attempt is without the option and the second with it, and the option is cleared after the
bind: then listen(2) of another program fails.
"""

from __future__ import annotations

import errno
import functools
import os
import resource
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from ipaddress import ip_address
from typing import Protocol

import msgspec

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound, Unsupported
from jaula.network import udp_flows
from jaula.network.drivers.bridge import BridgeNetwork
from jaula.spec.endpoint_record import ANY, ANY6, Endpoint, Gateways, PublishedPort

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_SEQPACKET}
_OTHER_FILES = 3500  # descriptors: two for each client (1,024) and transfer (512), and more
DYNAMIC_PORTS = range(49153, 65536)
"""Docker's range of ephemeral host ports."""


class PortRequest(msgspec.Struct, frozen=True):
    """A port to publish. ``host_port`` None requests an ephemeral port.

    ``host_ip`` '' means all addresses of the host, of both families if the container has both. With
    ``host_port_end`` the first free port of that inclusive range is allocated. ``preferred`` is a
    port to try first if the request leaves a choice.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None
    preferred: int | None = None


class PortTarget(msgspec.Struct, frozen=True):
    """The addresses that ports are forwarded to, '' for a family without ports."""

    ipv4: str = ""
    ipv6: str = ""


def check_request(request: PortRequest) -> PortRequest:
    """Return the request with its address in canonical form.

    :raises InvalidRequest: when the protocol, a port or the address is invalid.
    """
    if request.protocol not in PROTOCOLS:
        raise InvalidRequest(f"invalid protocol {request.protocol!r}", hint="tcp, udp or sctp")
    first, last = request.host_port, request.host_port_end
    for number in (request.container_port, first or 1, last or 1):
        if not 0 < number < 65536:
            raise InvalidRequest(f"invalid port {number}", hint="ports are from 1 to 65535")
    if last is not None and (first is None or last < first):
        raise InvalidRequest(f"invalid range of host ports {first}-{last}")
    if not request.host_ip:
        return request
    try:
        address = ip_address(request.host_ip)
    except ValueError as exc:
        raise InvalidRequest(f"invalid host address {request.host_ip!r}") from exc
    if address.version == 6 and (address.is_link_local or address.ipv4_mapped is not None):
        raise InvalidRequest(
            f"cannot publish on {address}", hint="use an IPv4 address, or a global IPv6 address"
        )
    return msgspec.structs.replace(request, host_ip=str(address))


def host_addresses(request: PortRequest, target: PortTarget, *, proxied: bool) -> tuple[str, ...]:
    """Return the host addresses on which a checked request is published.

    :param proxied: whether the binder proxies from IPv6 to IPv4.
    :raises Unsupported: when the address cannot be published.
    """
    ipv6 = bool(target.ipv6)
    if not request.host_ip:
        return (*((ANY,) if target.ipv4 else ()), *((ANY6,) if ipv6 or proxied else ()))
    if ":" not in request.host_ip and not target.ipv4:
        raise Unsupported(
            f"cannot publish on {request.host_ip}: the container has no IPv4 address",
            hint="create its network with IPv4, or use an IPv6 address of the host",
        )
    if ":" in request.host_ip and not proxied:
        if request.host_ip == "::1":
            raise Unsupported(
                "cannot publish on ::1: the kernel does not translate packets from ::1",
                hint="use 127.0.0.1",
            )
        if not ipv6:
            raise Unsupported(
                f"cannot publish on {request.host_ip}: the container has no IPv6 address",
                hint="create its network with --ipv6, or use an IPv4 address of the host",
            )
    return (request.host_ip,)


def dynamic_ports(local_range: range) -> list[range]:
    """Return the ranges to search for a free port: Docker's without the kernel's, if large enough.

    ``local_range`` is ip_local_port_range, from which the kernel takes ports for outgoing
    connections.
    """
    below = range(
        DYNAMIC_PORTS.start, max(DYNAMIC_PORTS.start, min(DYNAMIC_PORTS.stop, local_range.start))
    )
    above = range(
        min(DYNAMIC_PORTS.stop, max(DYNAMIC_PORTS.start, local_range.stop)), DYNAMIC_PORTS.stop
    )
    left = [part for part in (below, above) if part]
    return left if sum(map(len, left)) >= 1024 else [DYNAMIC_PORTS]


def read_local_range(path: str = "/proc/sys/net/ipv4/ip_local_port_range") -> range:
    """Return the kernel's range of ports for outgoing connections."""
    with open(path, encoding="ascii") as file:
        first, last = file.read().split()
    return range(int(first), int(last) + 1)


def bind_port(protocol: str, address: str, port: int) -> socket.socket | None:
    """Bind a socket to a host port. Return None if the kernel does not support the protocol.

    :raises OSError: when the port is not available (EADDRINUSE, EADDRNOTAVAIL).
    """
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, PROTOCOLS[protocol], _ip_protocol(protocol))
    except OSError as exc:
        if exc.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind((address, port))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or protocol != "tcp":
                raise
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        if protocol == "udp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's minimum
    except OSError:
        sock.close()
        raise
    return sock


def _ip_protocol(protocol: str) -> int:
    return {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}[protocol]


def candidate_ports(
    request: PortRequest, passed: dict[int, int], dynamic: Iterable[range]
) -> Iterator[int]:
    """Yield the host ports that satisfy a request, in the order to try them.

    ``passed`` has a later port for each port that cannot be had: these are not tried again.
    ``dynamic`` are the ranges for a request without a port of its own.
    """
    if request.host_port:
        ports = range(request.host_port, (request.host_port_end or request.host_port) + 1)
        if request.preferred is not None and request.preferred in ports:
            yield request.preferred
        yield from _unpassed_ports(passed, ports)
        return
    if request.preferred is not None:
        yield request.preferred
    offset = int.from_bytes(os.urandom(4), "big")  # several engines start at different ports
    for part in dynamic:
        start = part[offset % len(part)]
        yield from _unpassed_ports(passed, range(start, part.stop))
        yield from _unpassed_ports(passed, range(part.start, start))


def _unpassed_ports(passed: dict[int, int], ports: range) -> Iterator[int]:
    port = ports.start
    while (port := _not_passed(passed, port)) in ports:
        yield port
        port += 1


def _not_passed(passed: dict[int, int], port: int) -> int:
    """Return the first port from ``port`` on that was not passed. Shorten the way to it."""
    while (after := passed.get(port)) is not None:
        passed[port] = passed.get(after, after)
        port = after
    return port


_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class PortUnavailable(JaulaError):
    """A host port is in use by another container or another program."""


class ReservedPort(Protocol):
    """A reserved port: a socket, or a port that another process holds."""

    def close(self) -> None:
        """Release the port."""


Reservation = tuple[PublishedPort, ReservedPort | None]


class PortBinder(Protocol):
    """Binds host ports.

    ``persistent`` says that ports stay bound when the engine exits. ``proxied`` says that the
    binder connects to the container itself, whatever the client's address family is.
    """

    persistent: bool
    proxied: bool

    def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
        """Bind a port and forward what arrives to the container's address ``target``.

        Return None if the kernel does not support the protocol.

        :raises OSError: when the port is not available.
        """

    def release_others(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Release all ports of a former engine except these ports and targets."""


def _most_descriptors() -> int:
    """Return the descriptor from which on none is for a port, since clients need the rest."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(limit // 2, limit - _OTHER_FILES)


class HostPortBinder:
    """Binds ports in this process's network namespace; the firewall forwards the packets."""

    persistent = False
    proxied = False

    def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
        """Bind a socket to the port.

        :raises OSError: also when ports have as many descriptors of the process as they may.
        """
        sock = bind_port(port.protocol, port.host_ip, port.host_port)
        if sock is not None and sock.fileno() >= _most_descriptors():
            sock.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return sock

    def release_others(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Do nothing: sockets are closed when the engine exits."""


class PortAllocator:
    """All host ports of one engine, by container id."""

    def __init__(self, binder: PortBinder | None = None) -> None:
        self._binder = binder or HostPortBinder()
        self._allocated: dict[str, list[Reservation]] = {}
        self._index = AllocatedPorts()

    def allocate(
        self, container_id: str, requests: Iterable[PortRequest], target: PortTarget
    ) -> list[PublishedPort]:
        """Allocate the ports of one container: all of them or none.

        :raises PortUnavailable: when a port is taken. The message is the part of Docker's that
            follows ``driver failed programming external connectivity on endpoint NAME (ID):``.
        """
        reservations: list[Reservation] = []
        attempt = _Attempt()
        try:
            for request in map(check_request, requests):
                added = self._allocate_one(request, attempt, target)
                self._index.add(binding for binding, _ in added)
                reservations += added
        except BaseException:
            self._free(reservations)
            raise
        self._allocated.setdefault(container_id, []).extend(reservations)
        return [binding for binding, _ in reservations]

    def release(self, container_id: str) -> list[PublishedPort]:
        """Release all ports of a container and return them."""
        rows = self._allocated.pop(container_id, [])
        self._free(rows)
        return [binding for binding, _ in rows]

    def release_ports(self, container_id: str, ports: Set[PublishedPort]) -> None:
        """Release some ports of a container."""
        rows = self._allocated.pop(container_id, [])
        self._free([row for row in rows if row[0] in ports])
        if kept := [row for row in rows if row[0] not in ports]:
            self._allocated[container_id] = kept

    def _free(self, rows: Collection[Reservation]) -> None:
        self._index.remove(binding for binding, _ in rows)
        _close_all(rows)

    def allocated(self, container_id: str) -> tuple[PublishedPort, ...]:
        """Return the ports that a container has."""
        return tuple(binding for binding, _ in self._allocated.get(container_id, ()))

    def release_others(self, targets: Mapping[str, PortTarget]) -> None:
        """Release ports of a former engine that are not allocated now.

        :param targets: the container addresses by container id.
        """
        self._binder.release_others(
            (binding, self._target_address(binding, targets[container_id]))
            for container_id, rows in self._allocated.items()
            if container_id in targets
            for binding, _ in rows
        )

    def close(self) -> None:
        """Release all ports, unless the binder is persistent."""
        if self._binder.persistent:
            self._allocated.clear()
            self._index = AllocatedPorts()
        for container_id in list(self._allocated):
            self.release(container_id)

    def _allocate_one(
        self, request: PortRequest, attempt: _Attempt, target: PortTarget
    ) -> list[Reservation]:
        """Allocate the same port number on each address of a request."""
        has_choice = bool(request.host_port_end) or not request.host_port
        addresses = host_addresses(request, target, proxied=self._binder.proxied)
        passed = attempt.passed(request.protocol, addresses)
        dynamic = () if request.host_port else attempt.dynamic
        if (
            dynamic
            and request.preferred is None  # which may be outside the ranges
            and self._index.is_used_up(request.protocol, addresses, dynamic)
        ):
            raise _none_left(addresses[0], 0)
        for port in candidate_ports(request, passed, dynamic):
            passed[port] = port + 1
            bindings = [
                PublishedPort(request.container_port, request.protocol, address, port)
                for address in addresses
            ]
            conflict = next((b for b in bindings if self._index.conflicts(b)), None)
            if conflict is None:
                reservations = self._bind(request, bindings, target, has_choice)
                if reservations is not None:
                    return reservations
            elif not has_choice:
                raise PortUnavailable(
                    f"Bind for {conflict.host_ip}:{port} failed: port is already allocated"
                )
        raise _none_left(addresses[0], request.host_port or 0)

    def _target_address(self, binding: PublishedPort, target: PortTarget) -> str:
        uses_ipv4 = self._binder.proxied or ":" not in binding.host_ip
        return target.ipv4 if uses_ipv4 and target.ipv4 else target.ipv6

    def _bind(
        self,
        request: PortRequest,
        bindings: list[PublishedPort],
        target: PortTarget,
        has_choice: bool,
    ) -> list[Reservation] | None:
        """Bind a port on its addresses. Return None if one is in use and another port is possible.

        On a host without IPv6 a request without an address is bound on IPv4 only.
        """
        reservations: list[Reservation] = []
        for binding in bindings:
            try:
                reservations.append(
                    (binding, self._binder.bind(binding, self._target_address(binding, target)))
                )
            except OSError as exc:
                if not request.host_ip and binding.host_ip == ANY6 and exc.errno in _NO_IPV6:
                    continue
                _close_all(reservations)
                if has_choice and exc.errno == errno.EADDRINUSE:
                    return None
                raise PortUnavailable(
                    _bind_error(binding, exc), hint=_hint(binding.host_port, exc)
                ) from exc
        return reservations


class AllocatedPorts:
    """The allocated ports by number and protocol, so that a request looks at none but its own."""

    def __init__(self, bindings: Iterable[PublishedPort] = ()) -> None:
        self._addresses: dict[tuple[int, str], list[str]] = {}
        self._dynamic: dict[tuple[str, str], set[int]] = {}  # numbers in DYNAMIC_PORTS
        self.add(bindings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllocatedPorts) and self._contents == other._contents

    __hash__ = None  # type: ignore[assignment]

    @property
    def _contents(self) -> tuple[object, ...]:
        return {key: sorted(ips) for key, ips in self._addresses.items()}, self._dynamic

    def add(self, bindings: Iterable[PublishedPort]) -> None:
        """Add ports that are allocated."""
        for binding in bindings:
            key = (binding.host_port, binding.protocol)
            self._addresses.setdefault(key, []).append(binding.host_ip)
            if binding.host_port in DYNAMIC_PORTS:
                pool = self._dynamic.setdefault((binding.protocol, binding.host_ip), set())
                pool.add(binding.host_port)

    def remove(self, bindings: Iterable[PublishedPort]) -> None:
        """Remove ports that were added."""
        for binding in bindings:
            key = (binding.host_port, binding.protocol)
            addresses = self._addresses[key]
            addresses.remove(binding.host_ip)
            if not addresses:
                del self._addresses[key]
            if binding.host_port in DYNAMIC_PORTS:
                pool = self._dynamic[binding.protocol, binding.host_ip]
                pool.remove(binding.host_port)
                if not pool:
                    del self._dynamic[binding.protocol, binding.host_ip]

    def conflicts(self, binding: PublishedPort) -> bool:
        """Return whether an allocated port has the number and an address of ``binding``."""
        addresses = self._addresses.get((binding.host_port, binding.protocol), ())
        return any(_overlap(address, binding.host_ip) for address in addresses)

    def is_used_up(
        self, protocol: str, addresses: Iterable[str], dynamic: Collection[range]
    ) -> bool:
        """Return whether one address, or all of its family, has every port of some ranges.

        It may be False although none is free, if several addresses have them together.
        """
        least = sum(map(len, dynamic))
        for address in addresses:
            for taken in {address, ANY6 if ":" in address else ANY}:
                pool = self._dynamic.get((protocol, taken), ())
                if len(pool) >= least and all(port in pool for ports in dynamic for port in ports):
                    return True
        return False


class _Attempt:
    """What an allocation of many ports has learned, so that no port of it tries all others."""

    def __init__(self) -> None:
        self._passed: dict[tuple[str, tuple[str, ...]], dict[int, int]] = {}

    @functools.cached_property
    def dynamic(self) -> tuple[range, ...]:
        """The ranges of ports for requests that leave the choice to the engine."""
        return tuple(dynamic_ports(read_local_range()))

    def passed(self, protocol: str, addresses: Iterable[str]) -> dict[int, int]:
        """Return the ports that were tried on some addresses, each with a later one."""
        return self._passed.setdefault((protocol, tuple(addresses)), {})


def _overlap(first_ip: str, other_ip: str) -> bool:
    wildcard = ANY6 if ":" in first_ip else ANY
    return first_ip == other_ip or (
        (":" in first_ip) == (":" in other_ip) and wildcard in (first_ip, other_ip)
    )


def _none_left(address: str, port: int) -> PortUnavailable:
    return PortUnavailable(f"Bind for {address}:{port} failed: all ports are allocated")


def _close_all(rows: Iterable[Reservation]) -> None:
    for _, sock in rows:
        if sock is not None:
            sock.close()


def _hint(port: int, error: OSError) -> str | None:
    if error.errno == errno.EMFILE:
        return "publish fewer ports, or raise the engine's limit of open files"
    if error.errno != errno.EACCES:
        return None
    return f"low ports need root: as root, sysctl net.ipv4.ip_unprivileged_port_start={port}"


def _bind_error(port: PublishedPort, error: OSError) -> str:
    number = error.errno or errno.EIO
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    reason = {
        errno.EADDRINUSE: "address already in use",
        errno.EADDRNOTAVAIL: "cannot assign requested address",
    }.get(number, os.strerror(number).lower())
    endpoint = f"{address}:{port.host_port}"
    return (
        f"failed to bind port {endpoint}/{port.protocol}: Error starting userland proxy: "
        f"listen {port.protocol}{6 if ':' in address else 4} {endpoint}: bind: {reason}"
    )


class PortMapper:
    """All published ports of an engine. Not thread safe. ``warnings`` are for the operator."""

    def __init__(self, binder: PortBinder | None = None) -> None:
        self.warnings: list[str] = []
        self._ports = PortAllocator(binder)

    def publish(
        self,
        network: Callable[[str], BridgeNetwork],
        gateways: Gateways,
        ports: Sequence[PortRequest],
    ) -> list[PublishedPort]:
        """Publish ports of a container: all of them or none. ``network`` returns one by its name.

        A port of an IPv6 address leads to the gateway of IPv6 if there is one. Else the binder
        connects from IPv6 to the other gateway.
        """
        nets, container_id, name = self._networks(network, gateways)
        if self._ports.allocated(container_id):
            raise Conflict(f"ports of {name} are already published")
        bindings = self._ports.allocate(container_id, ports, _target(gateways))
        try:
            self._add(nets, gateways, container_id, bindings)
        except JaulaError:
            self.unpublish(nets.values(), container_id)
            raise
        return bindings

    def change(
        self,
        network: Callable[[str], BridgeNetwork],
        gateways: Gateways,
        added: Sequence[PortRequest],
        removed: Collection[PublishedPort],
    ) -> list[PublishedPort]:
        """Release some published ports of a container and publish others: all or nothing.

        Return the new ones. The other ports of the container stay in effect all the time.

        :raises PortUnavailable: when a port is taken.
        """
        nets, container_id, _ = self._networks(network, gateways)
        self._withdraw(nets.values(), container_id, removed)
        bindings: list[PublishedPort] = []
        try:
            bindings = self._ports.allocate(container_id, added, _target(gateways))
            self._add(nets, gateways, container_id, bindings)
        except JaulaError:
            self._withdraw(nets.values(), container_id, bindings)
            again = self._ports.allocate(container_id, map(_as_request, removed), _target(gateways))
            self._add(nets, gateways, container_id, again)
            raise
        return bindings

    def _networks(
        self, network: Callable[[str], BridgeNetwork], gateways: Gateways
    ) -> tuple[dict[str, BridgeNetwork], str, str]:
        """Return the networks of the gateways by name, the container's id and its name.

        :raises NotFound: when a gateway is not attached any more.
        """
        nets: dict[str, BridgeNetwork] = {}
        container_id = name = ""
        for endpoint in filter(None, gateways):
            net = nets[endpoint.network] = network(endpoint.network)
            current = net.endpoints.get(endpoint.container_id)
            if current is None or current.endpoint_id != endpoint.endpoint_id:
                raise NotFound(f"container {endpoint.container_name} is not attached")
            container_id, name = endpoint.container_id, endpoint.container_name
        return nets, container_id, name

    def _add(
        self,
        nets: Mapping[str, BridgeNetwork],
        gateways: Gateways,
        container_id: str,
        bindings: Sequence[PublishedPort],
    ) -> None:
        """Forward allocated ports in the firewall, and add them to the endpoints."""
        target = _target(gateways)
        rows: dict[str, list[PublishedPort]] = {}
        for binding in bindings:
            holder = gateways.ipv6 if ":" in binding.host_ip and target.ipv6 else gateways.ipv4
            assert holder is not None
            rows.setdefault(holder.network, []).append(binding)
        for key, own in rows.items():
            net = nets[key]
            current = net.endpoints[container_id]
            net.publish(current, own, verb="add")
            ports = (*current.ports, *own)
            net.endpoints[container_id] = msgspec.structs.replace(current, ports=ports)
        self.delete_udp_flows(bindings)

    def _withdraw(
        self,
        nets: Collection[BridgeNetwork],
        container_id: str,
        ports: Iterable[PublishedPort],
    ) -> None:
        """Release some published ports of a container, in linear time."""
        released = frozenset(ports)
        self._ports.release_ports(container_id, released)
        for net in nets:
            current = net.endpoints[container_id]
            own = [port for port in current.ports if port in released]
            if not own:
                continue
            kept = tuple(port for port in current.ports if port not in released)
            net.endpoints[container_id] = msgspec.structs.replace(current, ports=kept)
            net.publish(current, own, verb="delete")
            self.delete_udp_flows(own)

    def unpublish(self, nets: Collection[BridgeNetwork], container_id: str) -> None:
        """Release all published ports of a container."""
        self._ports.release(container_id)
        for net in nets:
            current = net.endpoints.get(container_id)
            if current is None or not current.ports:
                continue
            net.endpoints[container_id] = msgspec.structs.replace(current, ports=())
            net.publish(current, list(current.ports), verb="delete")
            self.delete_udp_flows(current.ports)

    def rebind(self, endpoints: Sequence[Endpoint]) -> None:
        """Bind the ports of the restored endpoints of one container unless they are bound.

        :raises JaulaError: when a port is not available.
        """
        container_id = endpoints[0].container_id
        ports = [port for endpoint in endpoints for port in endpoint.ports]
        if ports and set(self._ports.allocated(container_id)) != set(ports):
            self._ports.release(container_id)
            self._ports.allocate(container_id, map(_as_request, ports), port_target(endpoints))

    def release_others(self, endpoints: Sequence[Endpoint]) -> None:
        """Release ports of a former engine that these endpoints do not have."""
        containers: dict[str, list[Endpoint]] = {}
        for endpoint in endpoints:
            if endpoint.ports:
                containers.setdefault(endpoint.container_id, []).append(endpoint)
        self._ports.release_others({key: port_target(rows) for key, rows in containers.items()})

    def delete_udp_flows(self, ports: Sequence[PublishedPort]) -> None:
        """Delete tracked UDP flows to these ports, so that the kernel routes them again."""
        if all(port.protocol != "udp" for port in ports):
            return
        try:
            udp_flows.delete_udp_flows(ports)
        except OSError as exc:
            # Not fatal: such flows expire after 2 minutes without packets.
            self.warnings.append(f"UDP flows to the former owner of a port may continue: {exc}")

    def close(self) -> None:
        """Release all ports, unless the binder is persistent."""
        self._ports.close()


def _target(gateways: Gateways) -> PortTarget:
    return PortTarget(
        gateways.ipv4.ipv4 if gateways.ipv4 else "", gateways.ipv6.ipv6 if gateways.ipv6 else ""
    )


def port_target(endpoints: Sequence[Endpoint]) -> PortTarget:
    """Return the addresses of a container that its published ports are forwarded to.

    ``endpoints`` are those of the container. Each family's address is that of an endpoint with a
    port of this family, or else with any port.
    """

    def address(of: Callable[[Endpoint], str], version6: bool) -> str:
        def has_family(endpoint: Endpoint) -> bool:
            return any((":" in port.host_ip) == version6 for port in endpoint.ports)

        rows = sorted((e for e in endpoints if e.ports and of(e)), key=has_family, reverse=True)
        return of(rows[0]) if rows else ""

    return PortTarget(address(lambda e: e.ipv4, False), address(lambda e: e.ipv6, True))


def _as_request(binding: PublishedPort) -> PortRequest:
    """Return a request for exactly the port of a binding."""
    return PortRequest(binding.container_port, binding.protocol, binding.host_ip, binding.host_port)
