"""Ranges of host ids for the user namespaces of containers, and the id maps made from them.

Follows user_namespaces(7). Each container gets 65,536 ids that no other container has, so that an
id that leaks out of one container means nothing in the next. The engine keeps the ranges in use,
and the engines of one host tell each other theirs (:mod:`jaula.state.claims`).

``--userns=keep-id`` (podman-run(1)) maps one id to itself: the client that created the container
has the same id inside as on the host. All other ids are of the container's own range. Files that
the program writes into a directory of the host belong to the client, and so do the container's
processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from jaula.errors import InvalidRequest, Unavailable
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.runtime_spec import IDMapping
from jaula.state.container_records import ContainerRecord

SIZE = 65536  # ids of one container

KEEP_ID = "keep-id"

IdMaps = tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]
"""The maps of users and of groups."""


class IdRange(msgspec.Struct, frozen=True):
    """``size`` host ids from ``start`` on."""

    start: int
    size: int = SIZE


class SingleIdRange:
    """The one range of a rootless engine, which all of its containers share.

    The ids are those of the engine's user namespace, from 0 on: 0 is the user. ``starts`` are the
    ids at which a row of that namespace's own maps begins, of users or of groups.

    Facts: a row of an id map must lie in one row of the parent's map (user_namespaces(7)).
    """

    def __init__(self, size: int, starts: Iterable[int] = (0,)) -> None:
        self._range = IdRange(0, size)
        self._starts = sorted({0, *starts})

    def mappings(self, ids: IdRange) -> tuple[IDMapping, ...]:
        """Return the id map of a container, the same for users and groups."""
        ends = [*self._starts[1:], ids.size]
        return tuple(
            IDMapping(container_id=start, host_id=start, size=min(end, ids.size) - start)
            for start, end in zip(self._starts, ends, strict=True)
            if start < ids.size
        )

    def take(self) -> IdRange:
        """Return the same range every time."""
        return self._range

    def restore(self, starts: Iterable[int]) -> None:
        """Do nothing: the range is never exclusive."""

    def share(self, start: int) -> None:
        """Do nothing: the range is shared already."""

    def release(self, start: int) -> None:
        """Do nothing: the range stays in use."""


class HostIds(Protocol):
    """The ranges that the engines of this host have (:class:`jaula.state.claims.Claims`)."""

    def take_ids(self, start: int) -> bool:
        """Claim a range. Return False if another engine has a part of it."""
        ...

    def hold_ids(self, start: int) -> None:
        """Claim a range that a container of this engine has already."""
        ...

    def release_ids(self, start: int) -> None:
        """Release a range."""
        ...

    def foreign_ids(self) -> set[int]:
        """Return where the ranges of the other engines begin."""
        ...


class IdRanges:
    """The ranges in use; a start takes one, and the exit releases it.

    With ``host`` no range overlaps one of another engine of this host, even if both engines have
    the same ``start`` and ``count``.
    """

    def __init__(self, start: int, count: int, host: HostIds | None = None) -> None:
        self._start = start
        self._count = count
        self._host = host
        self._used: dict[int, int] = {}  # start of a range: number of containers that use it

    def take(self) -> IdRange:
        """Return a range that no container has.

        :raises Unavailable: when every range is in use.
        """
        foreign: set[int] = set()
        while True:
            ids = allocate((*self._used, *foreign), self._start, self._count)
            if self._host is None or self._host.take_ids(ids.start):
                break
            foreign = {*foreign, ids.start, *self._host.foreign_ids()}
        self._used[ids.start] = 1
        return ids

    def mappings(self, ids: IdRange) -> tuple[IDMapping, ...]:
        """Return the id map of a container, the same for users and groups."""
        return mappings(ids)

    def restore(self, starts: Iterable[int]) -> None:
        """Mark the ranges of running containers; containers that joined one repeat its start."""
        for start in starts:
            self.share(start)

    def share(self, start: int) -> None:
        """Count one more container, which joins the user namespace with this range."""
        if start not in self._used and self._host is not None:
            self._host.hold_ids(start)
        self._used[start] = self._used.get(start, 0) + 1

    def release(self, start: int) -> None:
        """Count one container less; the last one frees the range."""
        users = self._used.get(start, 0) - 1
        if users > 0:
            self._used[start] = users
        elif self._used.pop(start, None) is not None and self._host is not None:
            self._host.release_ids(start)


def allocate(used: Iterable[int], start: int, count: int, size: int = SIZE) -> IdRange:
    """Return a range that overlaps none of those that begin at ``used``.

    Ranges are cut from the ``count`` ids at ``start`` on. The search begins behind as many ranges
    as are in use. So it is short however many there are, and a range that was just released is not
    the first to be taken again.

    :raises Unavailable: when no range is free.
    """
    slots = count // size
    taken: set[int] = set()
    for first in used:
        offset = first - start
        taken.add(offset // size)
        if offset % size:  # a range of another configuration: it overlaps two slots
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
    """Return the id map of a container, for users and groups: 0 to ``size`` - 1 inside."""
    return (IDMapping(container_id=0, host_id=ids.start, size=ids.size),)


# -- keep-id -------------------------------------------------------------------------------------


def with_keep_id_user(
    body: ContainerCreate, owner: tuple[str, int], *, rootless: bool
) -> ContainerCreate:
    """Return the request with the client as the program's user, if it names no user.

    :raises InvalidRequest: when the owner's id cannot be kept, or the engine is rootless.
    """
    if body.host_config.userns_mode != KEEP_ID:
        return body
    if rootless:
        raise InvalidRequest(
            "--userns=keep-id: this engine's containers have its user's id as root already",
            hint="leave it out",
        )
    name, gid = owner
    _keep_id_maps(name, gid, IdRange(0))
    return msgspec.structs.replace(body, user=body.user or f"{name}:{gid}")


def keep_id_maps(record: ContainerRecord, ids: IdRange) -> IdMaps | None:
    """Return the id maps of a container that keeps its owner's id; None for every other one."""
    if not record.resolved.namespaces.keep_id:
        return None
    return _keep_id_maps(record.owner, record.owner_gid, ids)


def _keep_id_maps(owner: str, gid: int, ids: IdRange) -> IdMaps:
    if not owner.isdigit():
        raise InvalidRequest(f"--userns=keep-id: {owner} has no user id on this host")
    return keep_id_mappings(ids, int(owner)), keep_id_mappings(ids, gid)


def keep_id_mappings(ids: IdRange, own: int) -> tuple[IDMapping, ...]:
    """Return the map of a range in which ``own`` inside is ``own`` of the host.

    :raises InvalidRequest: when ``own`` is root, since the map would give away its power over the
        host, or when the range has no place for it.
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
