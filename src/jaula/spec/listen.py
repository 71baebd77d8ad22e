"""Listen lists: the ports at which a container may be reached. Pure.

An item is ``tcp:PORT`` or ``udp:PORT``. Port 0 stands for those that the kernel selects: what a
program gets that binds no port, or port 0. An empty list allows no port.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaula.errors import InvalidRequest

MAX_ITEMS = 1024  # of one container
SELECTED = (32768, 65535)  # net.ipv4.ip_local_port_range begins there by default


class Port(NamedTuple):
    """One item. ``number`` is 0 for the ports that the kernel selects."""

    protocol: str  # tcp or udp
    number: int

    @property
    def range(self) -> tuple[int, int]:
        """The first and the last port."""
        return (self.number, self.number) if self.number else SELECTED

    def __str__(self) -> str:
        return f"{self.protocol}:{self.number}"


def parse(items: Sequence[str]) -> tuple[Port, ...]:
    """Return the ports of a list without duplicates, sorted.

    :raises InvalidRequest: when an item is malformed, or there are too many.
    """
    if len(items) > MAX_ITEMS:
        raise InvalidRequest(f"listen list: {len(items)} items; at most {MAX_ITEMS} are allowed")
    return tuple(sorted({_parse_item(item) for item in items}))


def _parse_item(item: str) -> Port:
    protocol, colon, port = item.partition(":")
    if (
        protocol not in ("tcp", "udp")
        or not colon
        or not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535)
    ):
        raise InvalidRequest(
            f"listen list: invalid item {item[:80]!r}", hint="PROTOCOL:PORT, such as tcp:80"
        )
    return Port(protocol, int(port))


def allowed(ports: Iterable[Port]) -> frozenset[tuple[str, int]]:
    """Return the protocol and number of every port of a list, to look up many."""
    return frozenset(
        (port.protocol, number)
        for port in ports
        for number in range(port.range[0], port.range[1] + 1)
    )


def covers(ports: Sequence[Port], protocol: str, number: int) -> bool:
    """Return whether a list has a port."""
    return any(
        port.protocol == protocol and port.range[0] <= number <= port.range[1] for port in ports
    )
