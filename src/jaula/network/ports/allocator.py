"""Ports of the host that are reserved for containers.

A published port is translated by the firewall, so nothing needs to listen on it. But a socket is
really bound to it, in the engine, so that any other program that wants the port is told
EADDRINUSE, and so that a port which another program has is found out before it is taken away
from it. Messages are Docker's, since clients look for their words.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from jaula.errors import JaulaError
from jaula.network.ports.port import (
    PortRequest,
    PortTarget,
    bind_port,
    candidate_ports,
    check_request,
    host_addresses,
)
from jaula.spec.endpoint import ANY, ANY6, PublishedPort

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


NO_TARGET = PortTarget()


class PortUnavailable(JaulaError):
    """A host port is taken, by another container or by another program."""


class ReservedPort(Protocol):
    """What keeps a port: a socket, or somebody who has it."""

    def close(self) -> None:
        """Give the port back."""


Reservation = tuple[PublishedPort, ReservedPort | None]


class PortBinder(Protocol):
    """Takes ports of the host.

    ``outlives`` says that they stay taken when the engine ends, ``relays`` that it speaks with the
    container itself, whatever family a client has.
    """

    outlives: bool
    relays: bool

    def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
        """Keep a port; what arrives there is for the container at the address ``target``.

        None where the kernel lacks the protocol. Raises ``OSError`` if the port is not to be had.
        """

    def keep_only(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Let go of what a former engine has taken beyond these ports and targets."""


class HostPortBinder:
    """Ports of the network namespace that we are in; the firewall sends on what arrives."""

    outlives = False
    relays = False

    def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
        """A socket that is bound there."""
        return bind_port(port.protocol, port.host_ip, port.host_port)

    def keep_only(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Nothing outlives an engine."""


class PortAllocator:
    """Every host port of one engine, by the container that has it."""

    def __init__(self, binder: PortBinder | None = None) -> None:
        self._binder = binder or HostPortBinder()
        self._held: dict[str, list[Reservation]] = {}

    def reserve(
        self, container_id: str, requests: Iterable[PortRequest], target: PortTarget = NO_TARGET
    ) -> list[PublishedPort]:
        """Take the ports of one container, all or none.

        Raises ``PortUnavailable`` with the part of Docker's message that follows
        ``driver failed programming external connectivity on endpoint NAME (ID):``.
        """
        taken: list[Reservation] = []
        try:
            for request in map(check_request, requests):
                taken += self._one(request, [b for b, _ in taken], target)
        except (JaulaError, OSError):
            _give_back(taken)
            raise
        self._held.setdefault(container_id, []).extend(taken)
        return [binding for binding, _ in taken]

    def release(self, container_id: str) -> list[PublishedPort]:
        """Give all ports of a container back and say which they were."""
        rows = self._held.pop(container_id, [])
        _give_back(rows)
        return [binding for binding, _ in rows]

    def held(self, container_id: str) -> tuple[PublishedPort, ...]:
        return tuple(binding for binding, _ in self._held.get(container_id, ()))

    def keep_only(self, targets: Mapping[str, PortTarget]) -> None:
        """Let go of what was taken beyond what is held now. ``targets`` are by container."""
        self._binder.keep_only(
            (binding, self._leads(binding, targets[container_id]))
            for container_id, rows in self._held.items()
            if container_id in targets
            for binding, _ in rows
        )

    def close(self) -> None:
        """Give everything back, unless that is to outlive the engine."""
        if self._binder.outlives:
            self._held.clear()
        for container_id in list(self._held):
            self.release(container_id)

    def _one(
        self, request: PortRequest, also: list[PublishedPort], target: PortTarget
    ) -> list[Reservation]:
        """One port, the same number at each of its addresses."""
        choice = bool(request.host_port_end) or not request.host_port
        where = host_addresses(request, ipv6=bool(target.ipv6), relays=self._binder.relays)
        for port in candidate_ports(request):
            wanted = [
                PublishedPort(request.container_port, request.protocol, address, port)
                for address in where
            ]
            clash = next((binding for binding in wanted if self._clashes(binding, also)), None)
            if clash is None:
                taken = self._bind(request, wanted, target, choice)
                if taken is not None:
                    return taken
            elif not choice:
                raise PortUnavailable(
                    f"Bind for {clash.host_ip}:{port} failed: port is already allocated"
                )
        raise PortUnavailable(
            f"Bind for {where[0]}:{request.host_port or 0} failed: all ports are allocated"
        )

    def _leads(self, binding: PublishedPort, target: PortTarget) -> str:
        relayed = self._binder.relays or ":" not in binding.host_ip
        return target.ipv4 if relayed else target.ipv6

    def _bind(
        self, request: PortRequest, wanted: list[PublishedPort], target: PortTarget, choice: bool
    ) -> list[Reservation] | None:
        """None if one is taken and there is a ``choice``. On a host without IPv6 '' is IPv4."""
        taken: list[Reservation] = []
        for binding in wanted:
            try:
                taken.append((binding, self._binder.bind(binding, self._leads(binding, target))))
            except OSError as exc:
                if not request.host_ip and binding.host_ip == ANY6 and exc.errno in _NO_IPV6:
                    continue
                _give_back(taken)
                if choice and exc.errno == errno.EADDRINUSE:
                    return None
                raise PortUnavailable(
                    _foreign(binding, exc), hint=_reserved(binding.host_port, exc)
                ) from exc
        return taken

    def _clashes(self, wanted: PublishedPort, also: list[PublishedPort]) -> bool:
        held = [binding for rows in self._held.values() for binding, _ in rows]
        return any(
            other.host_port == wanted.host_port
            and other.protocol == wanted.protocol
            and _overlap(other.host_ip, wanted.host_ip)
            for other in (*held, *also)
        )


def _overlap(one: str, other: str) -> bool:
    every = ANY6 if ":" in one else ANY
    return one == other or ((":" in one) == (":" in other) and every in (one, other))


def _give_back(rows: Iterable[Reservation]) -> None:
    for _, kept in rows:
        if kept is not None:
            kept.close()


def _reserved(port: int, error: OSError) -> str | None:
    if error.errno != errno.EACCES:
        return None
    return f"low ports are root's: as root, sysctl net.ipv4.ip_unprivileged_port_start={port}"


def _foreign(port: PublishedPort, error: OSError) -> str:
    number = error.errno or errno.EIO
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    reason = {
        errno.EADDRINUSE: "address already in use",
        errno.EADDRNOTAVAIL: "cannot assign requested address",
    }.get(number, os.strerror(number).lower())
    where = f"{address}:{port.host_port}"
    return (
        f"failed to bind port {where}/{port.protocol}: Error starting userland proxy: "
        f"listen {port.protocol}{6 if ':' in address else 4} {where}: bind: {reason}"
    )
