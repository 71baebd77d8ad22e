"""Ranges of host ids, one for the user namespace of each container.

Follows user_namespaces(7). Each container gets 65,536 ids that no other container has, so an id
that leaks from one has no rights in another. The engine keeps the list of used ranges.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.errors import InvalidRequest, Unavailable
from jaula.spec.runtime import IDMapping

SIZE = 65536


class IdRange(msgspec.Struct, frozen=True):
    """A range of ``size`` host ids from ``start`` on."""

    start: int
    size: int = SIZE


def allocate(used: Iterable[int], start: int, count: int, size: int = SIZE) -> IdRange:
    """Return a range that overlaps none of those that start at ``used``.

    Ranges are allocated from the ``count`` ids from ``start`` on. The search skips as many ranges
    as are in use. So it is short for any number of ranges, and a range that was just released is
    not the first to be reused.

    :raises Unavailable: when all ranges are in use.
    """
    slots = count // size
    used_slots: set[int] = set()
    for first in used:
        offset = first - start
        used_slots.add(offset // size)
        if offset % size:  # allocated with other settings: it overlaps two slots
            used_slots.add(offset // size + 1)
    for step in range(slots):
        slot = (len(used_slots) + step) % slots
        if slot not in used_slots:
            return IdRange(start + slot * size, size)
    raise Unavailable(
        f"all {slots} ranges of {size} host ids from {start} on are in use",
        hint="remove containers, or give the engine more ids with --subid-count",
    )


def keep_id_mappings(ids: IdRange, kept_id: int) -> tuple[IDMapping, ...]:
    """Return the id map of a container with ``kept_id`` mapped to the same id of the host.

    :raises InvalidRequest: when ``kept_id`` is root, because that would give root of the host, or
        is not in the range.
    """
    if not 0 < kept_id < ids.size:
        raise InvalidRequest(
            f"--userns=keep-id: id {kept_id} cannot be kept",
            hint=f"it is for ordinary users, with user and group ids from 1 to {ids.size - 1}",
        )
    rows = (
        IDMapping(container_id=0, host_id=ids.start, size=kept_id),
        IDMapping(container_id=kept_id, host_id=kept_id, size=1),
        IDMapping(
            container_id=kept_id + 1, host_id=ids.start + kept_id + 1, size=ids.size - kept_id - 1
        ),
    )
    return tuple(row for row in rows if row.size)


def mappings(ids: IdRange) -> tuple[IDMapping, ...]:
    """Return the id map of a container, for uids and gids: 0 to ``size`` - 1."""
    return (IDMapping(container_id=0, host_id=ids.start, size=ids.size),)
