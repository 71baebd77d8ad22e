"""Resolve the names of containers in the networks of the container that asks.

Follows Docker's embedded DNS. A container of a user-defined network is known there by its name, its
aliases, its short id and its host name, each also with the network's name as a suffix. The default
network has no names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network

from jaula.network.dns import message
from jaula.spec.egress import Destination, permits_query
from jaula.spec.endpoint_record import Endpoint

Peers = Callable[[str], Iterable[Endpoint]]


def answer(
    query: message.Query, own_endpoints: Sequence[Endpoint], peers: Peers, *, limit: int
) -> bytes | None:
    """Return the engine's answer to a query, or None to forward the query to a name server.

    :param own_endpoints: the endpoints of the container that asks.
    :param peers: returns the endpoints of a network.
    """
    if query.error:
        return message.failure(query, query.error)
    if query.type == message.PTR and (address := message.parse_reverse_name(query.name)):
        result = find_name(address, own_endpoints, peers)
        return None if result is None else message.pointer(query, result, limit=limit)
    matches = find_endpoints(query.name, own_endpoints, peers)
    if not matches:
        return None
    addresses = [text for e in matches for text in (e.ipv4, e.ipv6) if text]
    if len(addresses) > 1:  # rotate by the query's id, to spread the load
        first = query.id % len(addresses)
        addresses = addresses[first:] + addresses[:first]
    return message.answer(query, addresses, limit=limit)


def find_endpoints(name: str, own_endpoints: Sequence[Endpoint], peers: Peers) -> list[Endpoint]:
    """Return the endpoints with a name, in the first network of the container that has any.

    The container's own links override the names of other containers.
    """
    for endpoint in own_endpoints:
        suffix = f".{endpoint.network.lower()}"
        queried = {name, name.removesuffix(suffix)} - {""}
        names = {endpoint.links.get(word, word).lower() for word in queried}
        result = [e for e in peers(endpoint.network) if names & {n.lower() for n in e.names}]
        if result:
            return result
    return []


def find_name(address: str, own_endpoints: Sequence[Endpoint], peers: Peers) -> str | None:
    """Return the name of the container with an address in one of the container's networks."""
    for endpoint in own_endpoints:
        for peer in peers(endpoint.network):
            if address in (peer.ipv4, peer.ipv6) and peer.names:
                return f"{peer.names[0]}.{peer.network}"
    return None


def may_forward(own_endpoints: Sequence[Endpoint]) -> bool:
    """Return whether queries may leave the host: not if all networks are internal.

    A name can carry data, so a resolver that forwards queries is a way out (CVE-2024-29018).
    """
    return any(not endpoint.internal for endpoint in own_endpoints)


def judge(
    query: message.Query,
    own_endpoints: Sequence[Endpoint],
    items: Sequence[Destination] | None,
) -> int:
    """Return the response code of a query that is not to be forwarded, or NOERROR to forward it.

    ``items`` is the container's egress list, None without one. With a list only its names may be
    asked for. An address of a container's own network that no container has has no name.
    """
    if items is None or permits_query(items, query.name):
        return message.NOERROR
    address = message.parse_reverse_name(query.name) if query.type == message.PTR else None
    if address is not None and any(_is_of(endpoint, address) for endpoint in own_endpoints):
        return message.NXDOMAIN
    return message.REFUSED


def _is_of(endpoint: Endpoint, address: str) -> bool:
    own, prefix = (
        (endpoint.ipv6, endpoint.prefix6) if ":" in address else (endpoint.ipv4, endpoint.prefix)
    )
    return bool(own) and ip_address(address) in ip_network(f"{own}/{prefix}", strict=False)


def unlisted(addresses: Iterable[str], items: Sequence[Destination]) -> list[str]:
    """Return the addresses that no item of a list contains."""
    networks = [item.network for item in items if item.network is not None]
    return [
        text for text in addresses if not any(ip_address(text) in network for network in networks)
    ]


def is_named(text: str, items: Sequence[Destination]) -> bool:
    """Return whether an item of a list is this one address, and not a network that contains it."""
    return any(
        item.network is not None
        and item.network.num_addresses == 1
        and item.network.network_address == ip_address(text)
        for item in items
    )


LEAST_TIME, MOST_TIME = 300, 24 * 3600  # seconds


def connectable(addresses: dict[str, int]) -> dict[str, int]:
    """Return the addresses that the name of an egress list may open, with a bounded time.

    A name's owner chooses its addresses. Those of the container itself and of its link are never
    opened: cloud hosts serve credentials on link-local addresses. Many programs keep an address
    longer than its TTL, so the time is at least ``LEAST_TIME``.
    """
    return {
        text: min(max(seconds, LEAST_TIME), MOST_TIME)
        for text, seconds in addresses.items()
        if _is_connectable(text)
    }


def _is_connectable(text: str) -> bool:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return False
    return not (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
    )


def is_usable_server(server: str) -> bool:
    """Return whether the engine may query a server of ``--dns``: not on loopback, however written.

    The user means the container's loopback, but the engine sends queries from the host. Linux
    treats the unspecified address as loopback.
    """
    address = ip_address(server)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)
