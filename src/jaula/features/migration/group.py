"""Groups of containers that move as one.

Every member has a connection and an :class:`~jaula.features.migration.source_engine.Outgoing` of
its own. A :class:`Group` lets them take the steps together: all are created before one is stopped,
all are stopped at about the same moment, and all are given away at once, when each of them is
ready. So TCP connections between two members go on: both ends are saved, and neither runs without
the other. A failure before that ends the migration of all, and all run on at the source.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from jaula.features.migration.coordinator import Step

if TYPE_CHECKING:
    from jaula.features.migration.coordinator import Givable
    from jaula.state.container_records import ContainerRecord
    from jaula.state.database import Database

PROJECT = "com.docker.compose.project"  # labels of compose
_SERVICE = "com.docker.compose.service"
_DEPENDS_ON = "com.docker.compose.depends_on"  # SERVICE:CONDITION:RESTART,...


def dependencies(records: Iterable[ContainerRecord]) -> dict[str, frozenset[str]]:
    """Return the ids that each container depends on, by id. Pure.

    The sources are namespaces that one joins, compose's labels and legacy links. Containers outside
    of ``records`` are left out.
    """
    records = tuple(records)
    services: dict[tuple[str, str], set[str]] = defaultdict(set)
    names = {}
    for record in records:
        labels = record.body.labels
        services[labels.get(PROJECT, ""), labels.get(_SERVICE, "")].add(record.id)
        names[record.name] = record.id
    result = {}
    for record in records:
        labels = record.body.labels
        found = set()
        for entry in filter(None, labels.get(_DEPENDS_ON, "").split(",")):
            found |= services.get((labels.get(PROJECT, ""), entry.partition(":")[0]), set())
        for link in record.body.host_config.links:
            if (name := link.partition(":")[0].lstrip("/")) in names:
                found.add(names[name])
        found |= joined(record) & {each.id for each in records}
        result[record.id] = frozenset(found - {record.id})
    return result


def joined(record: ContainerRecord) -> frozenset[str]:
    """Return the ids of the containers whose namespaces a container joins. Pure."""
    return frozenset(record.resolved.namespaces.containers().values())


def ordered(depends: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Return the ids with each one after those that it depends on. Pure.

    Ids of a circle keep the order of ``depends``.
    """
    result: dict[str, None] = {}
    rest = list(depends)
    while rest:
        free = [each for each in rest if depends[each] <= result.keys()] or rest[:1]
        result |= dict.fromkeys(free)
        rest = [each for each in rest if each not in result]
    return tuple(result)


class Group:
    """The common state of the members; their keys are ids of containers.

    ``depends`` are the members that each one depends on, ``owners`` those whose namespaces it
    joins, and ``volumes`` the names of the volumes of each. A volume of several members is sent by
    the first of them.
    """

    def __init__(
        self,
        database: Database,
        depends: Mapping[str, frozenset[str]],
        owners: Mapping[str, frozenset[str]],
        volumes: Mapping[str, frozenset[str]],
    ) -> None:
        self.id = secrets.token_hex(16)
        self.database = database
        self.owners = owners
        self.order = ordered(depends)
        self.given = False
        self.images: set[str] = set()  # ids that a member sends
        self._arrived: dict[Step, set[str]] = defaultdict(set)
        self._complete: dict[Step, asyncio.Event] = defaultdict(asyncio.Event)
        self.created = {each: asyncio.Event() for each in self.order}
        self.ready = {each: asyncio.Event() for each in self.order}
        self.continued = {each: asyncio.Event() for each in self.order}
        self.new_addresses: set[str] = set()  # members that do not keep theirs
        self._outgoing: list[Givable] = []
        before: dict[str, frozenset[str]] = {}
        self.members = {}
        sent: set[str] = set()
        for each in self.order:
            others = depends[each] & before.keys()  # without the rest of a circle
            self.members[each] = Member(self, each, others, frozenset(volumes[each] & sent))
            before[each] = others
            sent |= volumes[each]

    async def reach(self, member: str, step: Step) -> None:
        """Wait until all members have reached a step."""
        self._arrived[step].add(member)
        if len(self._arrived[step]) == len(self.order):
            self._complete[step].set()
        await self._complete[step].wait()

    @property
    def migrations(self) -> tuple[str, ...]:
        """The ids of the migrations that were given away."""
        return tuple(each.id for each in self._outgoing) if self.given else ()

    async def give(self, outgoing: Givable) -> None:
        """Wait until all members are ready. The last one decides for all, in one transaction."""
        self._outgoing.append(outgoing)
        if len(self._outgoing) == len(self.order):
            for each in self._outgoing:
                each.check_held()
            with self.database.transaction():
                for each in self._outgoing:
                    each.record_given()
            for each in self._outgoing:
                each.given = True
            self.given = True
            self._complete[Step.READY].set()
        try:
            await self._complete[Step.READY].wait()
        except BaseException:
            if not self.given:
                self._outgoing.remove(outgoing)  # it runs on here: no decision includes it
            raise


class Member:
    """The coordinator of one member."""

    def __init__(
        self, group: Group, key: str, depends: frozenset[str], sent_by_others: frozenset[str]
    ) -> None:
        self._group = group
        self._key = key
        self._depends = depends
        self.sent_by_others = sent_by_others
        self.members = len(group.order)
        self.group = group.id

    @property
    def migrations(self) -> tuple[str, ...]:
        return self._group.migrations

    async def reach(self, step: Step) -> None:
        await self._group.reach(self._key, step)

    @contextlib.asynccontextmanager
    async def creation(self, image: str) -> AsyncIterator[bool]:
        order: Sequence[str] = self._group.order
        position = order.index(self._key)
        if position:
            await self._group.created[order[position - 1]].wait()
        sends = image not in self._group.images
        self._group.images.add(image)
        yield sends
        self._group.created[self._key].set()

    def keeps_address(self, *, own: bool) -> bool:
        if not own:
            self._group.new_addresses.add(self._key)
        owners = self._group.owners[self._key]
        return own and not owners & self._group.new_addresses

    async def namespaces(self) -> None:
        for each in self._group.owners[self._key]:
            await self._group.ready[each].wait()

    async def give(self, outgoing: Givable) -> None:
        self._group.ready[self._key].set()
        await self._group.give(outgoing)

    @contextlib.asynccontextmanager
    async def continuation(self) -> AsyncIterator[None]:
        for each in self._depends:
            await self._group.continued[each].wait()
        try:
            yield
        finally:
            self._group.continued[self._key].set()
