"""What containers call each other: the names of one container's networks, and their addresses.

Follows Docker's embedded DNS: a container of a user's network is known there by its name, its
aliases, its short id and its host name, each also with the network's name behind it. The default
network has no names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address

from jaula.network.dns import message
from jaula.spec.endpoint import Endpoint

Peers = Callable[[str], Iterable[Endpoint]]


def answer(
    query: message.Query, own: Sequence[Endpoint], peers: Peers, *, limit: int
) -> bytes | None:
    """What the engine knows to say; None if somebody else has to be asked.

    ``own`` are the endpoints of the container that asks, ``peers`` gives those of a network.
    """
    if query.error:
        return message.failure(query, query.error)
    if query.type == message.PTR and (address := message.parse_reverse_name(query.name)):
        found = find_name(address, own, peers)
        return None if found is None else message.pointer(query, found, limit=limit)
    known = find_endpoints(query.name, own, peers)
    if not known:
        return None
    addresses = [text for e in known for text in (e.ipv4, e.ipv6) if text]
    if len(addresses) > 1:  # each asker begins with another one
        turn = query.id % len(addresses)
        addresses = addresses[turn:] + addresses[:turn]
    return message.answer(query, addresses, limit=limit)


def find_endpoints(name: str, own: Sequence[Endpoint], peers: Peers) -> list[Endpoint]:
    """Who has a name, on the first of the asker's networks where somebody has it.

    The asker's own links come before what others are called.
    """
    for endpoint in own:
        suffix = f".{endpoint.network.lower()}"
        asked = {name, name.removesuffix(suffix)} - {""}
        wanted = {endpoint.links.get(word, word).lower() for word in asked}
        found = [e for e in peers(endpoint.network) if wanted & {n.lower() for n in e.names}]
        if found:
            return found
    return []


def find_name(address: str, own: Sequence[Endpoint], peers: Peers) -> str | None:
    """The name of the container that has an address on one of the asker's networks."""
    for endpoint in own:
        for peer in peers(endpoint.network):
            if address in (peer.ipv4, peer.ipv6) and peer.names:
                return f"{peer.names[0]}.{peer.network}"
    return None


def may_forward(own: Sequence[Endpoint]) -> bool:
    """Whether questions of a container may leave: not if all of its networks are internal.

    A name can carry data, so a resolver that passes questions on is a way out (CVE-2024-29018).
    """
    return any(not endpoint.internal for endpoint in own)


def is_usable_server(server: str) -> bool:
    """Whether a server that ``--dns`` names is not the host's own loopback, however it is written.

    Who names one there means the container's, and questions are asked from the host. Linux takes
    the unspecified address for loopback.
    """
    address = ip_address(server)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)
