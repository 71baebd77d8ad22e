"""The steps that the members of a group take together, and the coordinator of a single container.

:mod:`jaula.features.migration.group` has the coordinator of several.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol


class Step(StrEnum):
    """A point at which the members wait for each other."""

    CREATED = "created"  # at the target, with the files of the first pass
    STOP = "stop"  # CRIU is ready to stop the processes, after the rounds of a pre-copy
    HELD = "held"  # dumped, and stopped
    SENT = "sent"  # everything has arrived
    READY = "ready"  # restored, verified, and not running yet


class Givable(Protocol):
    """A migration whose container can be given away."""

    given: bool

    @property
    def id(self) -> str:
        """The id of the migration."""
        ...

    def check_held(self) -> None:
        """Check that the container is still held.

        :raises JaulaError: when it is not.
        """
        ...

    def record_given(self) -> None:
        """Record that the container is given away."""
        ...


class Coordinator(Protocol):
    """The requests of one migration to its group."""

    @property
    def members(self) -> int:
        """The number of members."""
        ...

    @property
    def group(self) -> str:
        """The id of the group, '' for a container that moves alone."""
        ...

    @property
    def migrations(self) -> tuple[str, ...]:
        """The ids of the members' migrations, once they are given away."""
        ...

    @property
    def sent_by_others(self) -> frozenset[str]:
        """The names of volumes that another member sends."""
        ...

    async def reach(self, step: Step) -> None:
        """Wait until all members have reached a step."""
        ...

    def creation(self, image: str) -> AbstractAsyncContextManager[bool]:
        """Wait for the creation of earlier members; yield whether this one sends the image."""
        ...

    def keeps_address(self, *, own: bool) -> bool:
        """Record whether this member keeps its address; return whether its connections go on.

        A member of a network namespace depends on the owner's address.
        """
        ...

    async def namespaces(self) -> None:
        """Wait until the members whose namespaces this one joins are ready at the target."""
        ...

    async def give(self, outgoing: Givable) -> None:
        """Wait until all members are ready, and give all of them away.

        :raises JaulaError: when one is not held any more, or it cannot be recorded.
        """
        ...

    def continuation(self) -> AbstractAsyncContextManager[None]:
        """Wait until the members on which this one depends run."""
        ...


class Alone:
    """The coordinator of a container that moves alone."""

    members = 1
    group = ""
    migrations: tuple[str, ...] = ()
    sent_by_others: frozenset[str] = frozenset()

    async def reach(self, step: Step) -> None:
        """Return at once."""

    @contextlib.asynccontextmanager
    async def creation(self, image: str) -> AsyncIterator[bool]:
        """Yield True."""
        yield True

    def keeps_address(self, *, own: bool) -> bool:
        """Return the decision of the container itself."""
        return own

    async def namespaces(self) -> None:
        """Return at once."""

    async def give(self, outgoing: Givable) -> None:
        """Give the container away.

        :raises JaulaError: when it is not held any more, or it cannot be recorded.
        """
        outgoing.check_held()
        outgoing.record_given()
        outgoing.given = True

    @contextlib.asynccontextmanager
    async def continuation(self) -> AsyncIterator[None]:
        """Continue at once."""
        yield
