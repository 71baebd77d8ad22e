"""The ids of a container's user namespace: its own range, or that of a container that it joins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.engine.userns.id_ranges import IdMaps, IdRange, keep_id_maps

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord, Namespaces, StartIntent


def _taken(container: Container) -> ContainerRecord | StartIntent:
    """Return what has the ids of a container: its intent until a restored one has its commit."""
    record = container.record
    return record if container.held is None else record.start_intent or record


def namespace_owner(services: Services, modes: Namespaces) -> Container | None:
    """Return the container whose user namespace one joins with other namespaces, if it does."""
    for ref in modes.containers().values():
        return services.container_store.find(ref)
    return None


def take_ids(services: Services, record: ContainerRecord) -> IdRange:
    """Return a range that no other container has, or the one that a pod's client has chosen."""
    chosen = record.sandbox.request.ids if record.sandbox is not None else None
    if chosen is None:
        return services.id_ranges.take()
    services.id_ranges.share(chosen.start)
    return IdRange(chosen.start, chosen.count)


def ids_of(container: Container) -> IdRange | None:
    """Return the ids that a running container uses, its own or those of the one it joined."""
    taken = _taken(container)
    if taken.borrowed_size:
        return IdRange(taken.borrowed_start, taken.borrowed_size)
    if container.record.resolved.namespaces.user.host or not taken.range_size:
        return None
    return IdRange(taken.range_start, taken.range_size)


def id_maps(
    services: Services, record: ContainerRecord, ids: IdRange | None, *, is_borrowed: bool
) -> IdMaps:
    """Return the id maps of the container's user namespace; empty if that is the host's.

    ``is_borrowed`` says that the namespace is that of a container which it joins.
    """
    if ids is None:
        return (), ()
    while is_borrowed and (owner := namespace_owner(services, record.resolved.namespaces)):
        record = owner.record
        is_borrowed = bool(_taken(owner).borrowed_size)
    default = services.id_ranges.mappings(ids)
    return keep_id_maps(record, ids) or (default, ())
