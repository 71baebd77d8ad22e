"""Which host ids belong to which container: each has a range that no other one has."""

from __future__ import annotations

from collections.abc import Iterable

from jaula.confine import idranges
from jaula.confine.idranges import IdRange


class Ranges:
    """The ranges in use; one is taken for each start and given back at the end."""

    def __init__(self, start: int, count: int) -> None:
        self._start = start
        self._count = count
        self._used: set[int] = set()

    def take(self) -> IdRange:
        """A range nobody has.

        :raises Unavailable: every range is in use.
        """
        chosen = idranges.allocate(self._used, self._start, self._count)
        self._used.add(chosen.start)
        return chosen

    def hold(self, starts: Iterable[int]) -> None:
        """Mark ranges of containers that were running already."""
        self._used.update(starts)

    def give_back(self, start: int) -> None:
        """Free a range; its container has no process any more."""
        self._used.discard(start)
