"""Which host ids belong to which container: each has a range that no other one has."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.errors import InvalidRequest, Unavailable
from jaula.spec.api import ContainerCreate
from jaula.spec.runtime import IDMapping
from jaula.state.records import ContainerRecord


class SingleIdRange:
    """The ids of an ordinary user's engine, which all of its containers have together.

    Ids in the user namespace of the engine, from 0 on: 0 is the user. ``starts`` are those at which
    a row of that namespace's own maps begins, for one of users and groups.

    Facts: a row of an id map must lie in one row of the parent's map (user_namespaces(7)).
    """

    def __init__(self, size: int, starts: Iterable[int] = (0,)) -> None:
        self._range = IdRange(0, size)
        self._starts = sorted({0, *starts})

    def mappings(self, ids: IdRange) -> tuple[IDMapping, ...]:
        """The id map of a container, the same for users and groups."""
        ends = [*self._starts[1:], ids.size]
        return tuple(
            IDMapping(container_id=start, host_id=start, size=min(end, ids.size) - start)
            for start, end in zip(self._starts, ends, strict=True)
            if start < ids.size
        )

    def take(self) -> IdRange:
        """The same range every time."""
        return self._range

    def hold(self, starts: Iterable[int]) -> None:
        """Nobody has it alone."""

    def borrow(self, start: int) -> None:
        """It is everyone's."""

    def release(self, start: int) -> None:
        """It stays in use."""


class IdRanges:
    """The ranges in use; one is taken for each start and given back at the end."""

    def __init__(self, start: int, count: int) -> None:
        self._start = start
        self._count = count
        self._used: dict[int, int] = {}  # containers that use it, by its start

    def take(self) -> IdRange:
        """A range nobody has.

        :raises Unavailable: every range is in use.
        """
        chosen = allocate(self._used, self._start, self._count)
        self._used[chosen.start] = 1
        return chosen

    def mappings(self, ids: IdRange) -> tuple[IDMapping, ...]:
        """The id map of a container, the same for users and groups."""
        return mappings(ids)

    def hold(self, starts: Iterable[int]) -> None:
        """Mark ranges of containers that were running already; one may be several's."""
        for start in starts:
            self.borrow(start)

    def borrow(self, start: int) -> None:
        """One more container uses a range: it joins the user namespace of the one that has it."""
        self._used[start] = self._used.get(start, 0) + 1

    def release(self, start: int) -> None:
        """A container has no process any more; the last one that used a range frees it."""
        left = self._used.get(start, 0) - 1
        if left > 0:
            self._used[start] = left
        else:
            self._used.pop(start, None)


KEEP_ID = "keep-id"

IdMaps = tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]


def with_keep_id_user(
    body: ContainerCreate, owner: tuple[str, int], *, rootless: bool
) -> ContainerCreate:
    """The request with the program's user, where it names none.

    Raises ``InvalidRequest`` for an owner whose id cannot be kept.
    """
    if body.host_config.userns_mode != KEEP_ID:
        return body
    if rootless:
        raise InvalidRequest(
            "--userns=keep-id: this engine's containers have its user's id as root already",
            hint="leave it out",
        )
    name, gid = owner
    _maps(name, gid, IdRange(0))
    return msgspec.structs.replace(body, user=body.user or f"{name}:{gid}")


def keep_id_maps(record: ContainerRecord, ids: IdRange) -> IdMaps | None:
    """The id maps of a container that keeps its owner's id; None for every other one."""
    if not record.resolved.namespaces.keep_id:
        return None
    return _maps(record.owner, record.owner_gid, ids)


def _maps(owner: str, gid: int, ids: IdRange) -> IdMaps:
    if not owner.isdigit():
        raise InvalidRequest(f"--userns=keep-id: {owner} has no user id on this host")
    return keep_id_mappings(ids, int(owner)), keep_id_mappings(ids, gid)


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
