"""``--link``: the names of other containers in a container's hosts file and variables.

Follows docker docs, "Legacy container links". On the default network a name stands for the address
that the other container has when this one starts, and the variables that it was made with are
passed on. On a user's network a link is one more name that this container alone has for another,
which the resolver knows (:mod:`jaula.network.dns.names`); the other need not run then. What
becomes of links while containers run is in :mod:`~.linking`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.engine.networks.port_bindings import parse_port
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.network import etc_hosts
from jaula.state.records import Link

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.records import ContainerRecord, Namespaces, ResolvedRequest

_MARKS = str.maketrans("-.", "__")
_OWN = ("HOME", "PATH")  # say nothing to another container


def parse(text: str) -> Link:
    """``NAME``, ``NAME:ALIAS``, or what ``inspect`` shows (``/NAME:/ME/ALIAS``)."""
    ref, colon, alias = text.partition(":")
    ref, alias = ref.lstrip("/"), alias.rpartition("/")[2]
    if not ref or (colon and not alias) or ":" in alias:
        raise InvalidRequest(f"bad format for links: {text}", hint="NAME or NAME:ALIAS")
    return Link(ref, alias or ref)


def check(parts: Services, resolved: ResolvedRequest) -> None:
    """Refuse what cannot be linked. Raises :class:`InvalidRequest`.

    An unknown container is no 404: the docker command takes that for a missing image.
    """
    for link in resolved.links:
        if not resolved.namespaces.network:
            raise InvalidRequest("conflicting options: links and a network that is not the own")
        if not by_address(resolved.namespaces):
            continue
        try:
            parts.registry.find(link.ref)
        except NotFound as error:
            raise InvalidRequest(
                f"could not get container for {link.ref}: {error.message}"
            ) from None


def by_address(modes: Namespaces) -> bool:
    """Return whether links are entries of the hosts file: on the default network alone."""
    return modes.network == "bridge"


def resolve_links(
    parts: Services, record: ContainerRecord, networks: Collection[str]
) -> list[tuple[Link, Container, str]]:
    """Return the links of a container that starts, with the others' addresses.

    ``networks`` are the names of its networks.

    :raises Conflict: one does not run, or has no network with it.
    """
    if not by_address(record.resolved.namespaces):
        return []
    linked = []
    for link in record.resolved.links:
        other = parts.registry.find(link.ref)
        if not other.live:
            raise Conflict(
                f"Cannot link to a non running container: /{other.name}"
                f" AS /{record.name}/{link.alias}"
            )
        address = address_on(networks, other.record)
        if not address:
            raise Conflict(
                f"cannot link to {other.name}: it has no network with {record.name}",
                hint="connect both to one network",
            )
        linked.append((link, other, address))
    return linked


def address_on(networks: Collection[str], record: ContainerRecord) -> str:
    """A container's address on the first of its networks that is one of these; '' for none."""
    return next((e.ipv4 or e.ipv6 for e in record.endpoints if e.network in networks), "")


def hosts_lines(linked: Iterable[tuple[Link, Container, str]]) -> list[str]:
    """Lines for the hosts file.

    :raises InvalidRequest: an alias that cannot stand there.
    """
    return [
        etc_hosts.line(address, link.alias, other.record.hostname, other.name)
        for link, other, address in linked
    ]


def environment(
    record: ContainerRecord, linked: Iterable[tuple[Link, Container, str]]
) -> tuple[str, ...]:
    """``ALIAS_NAME``, ``ALIAS_PORT``, those of every exposed port, and ``ALIAS_ENV_...``."""
    variables = []
    for link, other, address in linked:
        prefix = link.alias.upper().translate(_MARKS)
        variables.append(f"{prefix}_NAME=/{record.name}/{link.alias}")
        ports = sorted(parse_port(text) for text in other.record.body.exposed_ports)
        for index, (number, protocol) in enumerate(ports):
            url = f"{protocol}://{address}:{number}"
            start = f"{prefix}_PORT_{number}_{protocol.upper()}"
            if index == 0:
                variables.append(f"{prefix}_PORT={url}")
            variables += [
                f"{start}={url}",
                f"{start}_ADDR={address}",
                f"{start}_PORT={number}",
                f"{start}_PROTO={protocol}",
            ]
        for name, _, value in (text.partition("=") for text in other.record.body.env):
            if name not in _OWN:
                variables.append(f"{prefix}_ENV_{name}={value}")
    return tuple(variables)
