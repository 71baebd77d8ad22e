"""Legacy links of containers that run: they follow an address, and are taken away.

Follows dockerd: when a container starts again, the hosts files of those that are linked to it get
its new address; while it does not run, the old one stays. ``rm --link`` takes the line out at once.
Unlike dockerd's, the file is not made anew: what the container has written itself stays. The
variables of a program that runs stay as well. What a link is, is in :mod:`~.links`.
"""

from __future__ import annotations

import functools
import itertools
import logging
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.networks import endpoints, etc_files, links
from jaula.errors import JaulaError, NotFound
from jaula.network import etc_hosts

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

log = logging.getLogger("jaula.network")


def update_linked_hosts(parts: Services, other: Container) -> None:
    """Write the address with which a container has started into the files of those linked to it.

    Whether they run is not asked: one that is being started may have its file already.
    """
    for container in parts.registry:
        resolved = container.record.resolved
        if not resolved.links or not links.by_address(resolved.namespaces):
            continue
        address = links.address_on(endpoints.settings_of(container.record), other.record)
        for link in resolved.links:
            if address and _found(parts, link.ref) is other:
                names = (link.alias, other.record.hostname)
                _change(
                    parts,
                    container,
                    functools.partial(etc_hosts.readdressed, names=names, address=address),
                )


def link_parent(parts: Services, name: str) -> Container:
    """The container that has the link ``NAME/ALIAS``; words and statuses are Docker's.

    :raises NotFound: there is no such link.
    :raises JaulaError: the name is a container's own.
    """
    of, _, alias = name.removeprefix("/").rpartition("/")
    if not of:
        parts.registry.find(name)
        raise JaulaError("Conflict, cannot remove the default link name of the container")
    container = parts.registry.get(parts.registry.names.get(of, ""))
    if container is not None:
        resolved = container.record.resolved
        if links.by_address(resolved.namespaces) and any(
            link.alias == alias for link in resolved.links
        ):
            return container
    raise NotFound(f"No such container: {name}")


def remove_link(parts: Services, name: str) -> None:
    """Take the link ``NAME/ALIAS`` away. The caller holds the lock of the container that has it.

    The body keeps the links in the order of the resolved request, so both lose the same ones.
    """
    container = link_parent(parts, name)
    before = container.record
    host, resolved = before.body.host_config, before.resolved
    alias = name.rpartition("/")[2]
    kept = [link.alias != alias for link in resolved.links]
    gone = [link for link in resolved.links if link.alias == alias]
    host = msgspec.structs.replace(host, links=tuple(itertools.compress(host.links, kept)))
    container.change(
        body=msgspec.structs.replace(before.body, host_config=host),
        resolved_request=msgspec.structs.replace(
            resolved, links=tuple(itertools.compress(resolved.links, kept))
        ),
    )
    try:
        parts.registry.save(container)
    except JaulaError:
        container.change(body=before.body, resolved_request=resolved)
        raise
    for link in gone:
        other = _found(parts, link.ref)
        # Of one that was removed, the host name is not known any more.
        names = (link.alias, other.record.hostname) if other else (link.alias,)
        _change(parts, container, functools.partial(etc_hosts.without, names=names))


def _found(parts: Services, ref: str) -> Container | None:
    try:
        return parts.registry.find(ref)
    except JaulaError:
        return None  # it was removed or renamed, or its short id is no longer the only one


def _change(parts: Services, container: Container, change: Callable[[bytes], bytes]) -> None:
    """A link is not worth a container's start: what fails is logged."""
    try:
        etc_files.change_hosts(parts, container.record, change)
    except OSError as error:
        log.warning("container %s: cannot change its hosts file: %s", container.name, error)
