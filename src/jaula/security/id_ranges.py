"""Ranges of host ids, one for each container's user namespace.

Follows user_namespaces(7). Each container gets 65,536 ids that no other container has, so that an
id that leaks out of one means nothing in the next. The engine keeps the list of what is used.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.errors import InvalidRequest, Unavailable
from jaula.spec.runtime import IDMapping

SIZE = 65536


class IdRange(msgspec.Struct, frozen=True):
    """``size`` host ids from ``start`` on."""

    start: int
    size: int = SIZE


def allocate(used: Iterable[int], start: int, count: int, size: int = SIZE) -> IdRange:
    """A range that overlaps none of those that begin at ``used``.

    Ranges are cut from the ``count`` ids at ``start`` on. The search begins behind as many ranges
    as are in use, so that it is short however many there are, and a range that was just given back
    is not the first to be taken again. Raises ``Unavailable`` where none is left.
    """
    slots = count // size
    taken: set[int] = set()
    for first in used:
        offset = first - start
        taken.add(offset // size)
        if offset % size:  # from an engine that was configured otherwise: touches two
            taken.add(offset // size + 1)
    for step in range(slots):
        slot = (len(taken) + step) % slots
        if slot not in taken:
            return IdRange(start + slot * size, size)
    raise Unavailable(
        f"all {slots} ranges of {size} host ids from {start} on are in use",
        hint="remove containers, or give the engine more ids with --subid-count",
    )


def keep_id_mappings(ids: IdRange, own: int) -> tuple[IDMapping, ...]:
    """The same map, but ``own`` inside is ``own`` of the host.

    Raises ``InvalidRequest`` for root, whose power over the host that would give away, and for an
    id that the range has no place for.
    """
    if not 0 < own < ids.size:
        raise InvalidRequest(
            f"--userns=keep-id: id {own} cannot be kept",
            hint=f"it is for ordinary users, with user and group ids from 1 to {ids.size - 1}",
        )
    rows = (
        IDMapping(container_id=0, host_id=ids.start, size=own),
        IDMapping(container_id=own, host_id=own, size=1),
        IDMapping(container_id=own + 1, host_id=ids.start + own + 1, size=ids.size - own - 1),
    )
    return tuple(row for row in rows if row.size)


def mappings(ids: IdRange) -> tuple[IDMapping, ...]:
    """The id map of a container, the same for users and groups: 0 to ``size`` - 1 inside."""
    return (IDMapping(container_id=0, host_id=ids.start, size=ids.size),)
