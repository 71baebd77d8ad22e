"""Which host ids belong to which container: each has a range that no other one has."""

from __future__ import annotations

from collections.abc import Iterable

from jaula.security import id_ranges
from jaula.security.id_ranges import IdRange
from jaula.spec.runtime import IDMapping


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
        chosen = id_ranges.allocate(self._used, self._start, self._count)
        self._used[chosen.start] = 1
        return chosen

    def mappings(self, ids: IdRange) -> tuple[IDMapping, ...]:
        """The id map of a container, the same for users and groups."""
        return id_ranges.mappings(ids)

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
