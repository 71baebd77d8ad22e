"""Ranges of host ids, one for each container's user namespace.

Follows user_namespaces(7). Each container gets 65,536 ids that no other container has, so that an
id that leaks out of one means nothing in the next. The engine keeps the list of what is used.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.errors import Unavailable
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


def mappings(ids: IdRange) -> tuple[IDMapping, ...]:
    """The id map of a container, the same for users and groups: 0 to ``size`` - 1 inside."""
    return (IDMapping(container_id=0, host_id=ids.start, size=ids.size),)
