"""``--link``: names of other containers in a container's hosts file and variables.

Follows docker docs, "Legacy container links". On the default network an alias stands for the
address that the other container has when this one starts, and the variables of the other are passed
on. On a user's network a link is one more name, for this container alone, which the DNS server
knows (:mod:`jaula.network.dns.container_names`); the other need not run then.

Links of running containers follow dockerd. When the other container starts again, the hosts file
gets its new address; while it does not run, the old address stays. ``rm --link`` removes the line
at once. Unlike dockerd's, the file is not written anew: lines that the container has written stay.
The variables of a running program stay as well.
"""

from __future__ import annotations

import functools
import itertools
import logging
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.networks import provided_files
from jaula.engine.networks.port_bindings import parse_port
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.network import etc_files
from jaula.state.container_records import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord, Namespaces, ResolvedRequest

log = logging.getLogger("jaula.network")

_TO_UNDERSCORE = str.maketrans("-.", "__")
_OWN = ("HOME", "PATH")  # have no meaning in another container


def parse(text: str) -> Link:
    """Parse ``NAME``, ``NAME:ALIAS``, or the form that ``inspect`` shows (``/NAME:/ME/ALIAS``).

    :raises InvalidRequest: when the text has another form.
    """
    ref, colon, alias = text.partition(":")
    ref, alias = ref.lstrip("/"), alias.rpartition("/")[2]
    if not ref or (colon and not alias) or ":" in alias:
        raise InvalidRequest(f"bad format for links: {text}", hint="NAME or NAME:ALIAS")
    return Link(ref, alias or ref)


def check(services: Services, resolved: ResolvedRequest) -> None:
    """Check that the links of a request can be made.

    :raises InvalidRequest: when one cannot. An unknown container is not a 404: the docker command
        takes that for a missing image.
    """
    for link in resolved.links:
        if not resolved.namespaces.network:
            raise InvalidRequest("conflicting options: links need a network of the container's own")
        if not by_address(resolved.namespaces):
            continue
        try:
            services.container_store.find(link.ref)
        except NotFound as error:
            raise InvalidRequest(
                f"could not get container for {link.ref}: {error.message}"
            ) from None


def by_address(modes: Namespaces) -> bool:
    """Return whether links are lines of the hosts file: on the default network alone."""
    return modes.network == "bridge"


def resolve_links(services: Services, record: ContainerRecord) -> list[tuple[Link, Container, str]]:
    """Return the links of a container that starts, with the other containers and their addresses.

    :raises Conflict: when another container does not run, or has no network with this one.
    """
    if not by_address(record.resolved.namespaces):
        return []
    linked = []
    for link in record.resolved.links:
        other = services.container_store.find(link.ref)
        if not other.live:
            raise Conflict(
                f"Cannot link to a non running container: /{other.name}"
                f" AS /{record.name}/{link.alias}"
            )
        address = address_on(_networks(record), other.record)
        if not address:
            raise Conflict(
                f"cannot link to {other.name}: it has no network with {record.name}",
                hint="connect both to one network",
            )
        linked.append((link, other, address))
    return linked


def _networks(record: ContainerRecord) -> Collection[str]:
    """Return the names of the networks of a container with links by address.

    A record without networks is older than users' networks: it is on the default network.
    """
    return ("bridge",) if record.networks is None else record.networks


def address_on(networks: Collection[str], record: ContainerRecord) -> str:
    """Return a container's address on the first of ``networks`` that it is on, or ''."""
    return next((e.ipv4 or e.ipv6 for e in record.endpoints if e.network in networks), "")


def hosts_lines(linked: Iterable[tuple[Link, Container, str]]) -> list[str]:
    """Return the lines for the hosts file.

    :raises InvalidRequest: when an alias is not valid there.
    """
    return [
        etc_files.link_line(address, link.alias, other.record.hostname, other.name)
        for link, other, address in linked
    ]


def environment(
    record: ContainerRecord, linked: Iterable[tuple[Link, Container, str]]
) -> tuple[str, ...]:
    """Return ``ALIAS_NAME``, ``ALIAS_PORT``, those of every exposed port, and ``ALIAS_ENV_...``."""
    variables = []
    for link, other, address in linked:
        prefix = link.alias.upper().translate(_TO_UNDERSCORE)
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


def aliases(services: Services) -> dict[str, list[str]]:
    """Return the names ``/NAME/ALIAS`` that links of other containers give to containers, by id."""
    names: dict[str, list[str]] = {}
    for container in services.container_store:
        record = container.record
        if not (record.resolved.links and by_address(record.resolved.namespaces)):
            continue
        for link in record.resolved.links:
            if (other := _find(services, link.ref)) is not None:
                names.setdefault(other.id, []).append(f"/{record.name}/{link.alias}")
    return {ref: sorted(group) for ref, group in names.items()}


# -- running containers --------------------------------------------------------------------------


def update_linked_hosts(services: Services, other: Container) -> None:
    """Write the address of a started container into the hosts files of containers linked to it.

    Containers that do not run are included: one that is being started may have its file already.
    """
    for container in services.container_store:
        resolved = container.record.resolved
        if not resolved.links or not by_address(resolved.namespaces):
            continue
        address = address_on(_networks(container.record), other.record)
        for link in resolved.links:
            if address and _find(services, link.ref) is other:
                names = (link.alias, other.record.hostname)
                _change_hosts(
                    services,
                    container,
                    functools.partial(etc_files.set_link_address, names=names, address=address),
                )


def link_parent(services: Services, name: str) -> Container:
    """Return the container that has the link ``NAME/ALIAS``; messages and statuses are Docker's.

    :raises NotFound: when there is no such link.
    :raises JaulaError: when the name is a container's own.
    """
    parent_name, _, alias = name.removeprefix("/").rpartition("/")
    if not parent_name:
        services.container_store.find(name)
        raise JaulaError("Conflict, cannot remove the default link name of the container")
    container = services.container_store.get(services.container_store.names.get(parent_name, ""))
    if container is not None:
        resolved = container.record.resolved
        if by_address(resolved.namespaces) and any(link.alias == alias for link in resolved.links):
            return container
    raise NotFound(f"No such container: {name}")


def remove_link(services: Services, name: str) -> None:
    """Remove the link ``NAME/ALIAS``. The caller holds the lock of the container that has it.

    The body has the links in the order of the resolved request, so both lose the same ones.
    """
    container = link_parent(services, name)
    before = container.record
    host, resolved = before.body.host_config, before.resolved
    alias = name.rpartition("/")[2]
    kept = [link.alias != alias for link in resolved.links]
    removed = [link for link in resolved.links if link.alias == alias]
    host = msgspec.structs.replace(host, links=tuple(itertools.compress(host.links, kept)))
    container.change(
        body=msgspec.structs.replace(before.body, host_config=host),
        resolved_request=msgspec.structs.replace(
            resolved, links=tuple(itertools.compress(resolved.links, kept))
        ),
    )
    try:
        services.container_store.save(container)
    except JaulaError:
        container.change(body=before.body, resolved_request=resolved)
        raise
    for link in removed:
        other = _find(services, link.ref)
        # The host name of a removed container is not known any more.
        names = (link.alias, other.record.hostname) if other else (link.alias,)
        _change_hosts(
            services, container, functools.partial(etc_files.remove_link_line, names=names)
        )


def _find(services: Services, ref: str) -> Container | None:
    try:
        return services.container_store.find(ref)
    except JaulaError:
        return None  # it was removed or renamed, or its short id is no longer the only one


def _change_hosts(
    services: Services, container: Container, change: Callable[[bytes], bytes]
) -> None:
    """Change a hosts file; log a failure, since a link must not prevent a container's start."""
    try:
        provided_files.change_hosts(services, container.record, change)
    except OSError as error:
        log.warning("container %s: cannot change its hosts file: %s", container.name, error)
