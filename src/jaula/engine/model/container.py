"""One container as the engine holds it: its record, and what exists only while the engine runs."""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.errors import Conflict
from jaula.spec.api_params import WaitResult
from jaula.state.records import ContainerRecord, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jaula.engine.userns.id_ranges import IdMaps
    from jaula.runtime.client import Shim
    from jaula.runtime.protocol import AttachStream


class Container:
    """A record with its shim, its waiters and the clients that came before the start.

    ``lock`` is held through every transition. ``pending`` are sockets of clients that attached
    before there was a process; this object owns them until a start takes them. ``prepare`` is
    called by a start once the container's ids are known, and may change its mounts. ``hidden_env``
    are variables that no record holds; ``bundle`` is where the spec is written then.
    """

    def __init__(self, record: ContainerRecord) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.shim: Shim | None = None
        self.pending: list[tuple[int, AttachStream]] = []
        self.execs: set[str] = set()
        self.exited = asyncio.Event()
        if not self.live:
            self.exited.set()
        self.restart: asyncio.Task[None] | None = None
        self.prepare: Callable[[IdMaps], Awaitable[None]] | None = None
        self.transient_env: tuple[str, ...] = ()
        self.bundle = ""
        self.removing = False
        self._waiters: list[tuple[str, asyncio.Future[WaitResult]]] = []

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def live(self) -> bool:
        """Whether its first process exists."""
        return self.record.status in LIVE

    def change(self, **fields: Any) -> ContainerRecord:
        """Replace fields of the record in memory; the registry writes it."""
        self.record = msgspec.structs.replace(self.record, **fields)
        return self.record

    def wait(self, condition: str) -> asyncio.Future[WaitResult]:
        """A future for ``next-exit`` or ``removed``."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        self._waiters.append((condition, future))
        return future

    def tell(self, conditions: tuple[str, ...], result: WaitResult) -> None:
        """Resolve those who wait for one of ``conditions``."""
        kept = []
        for condition, future in self._waiters:
            if condition not in conditions:
                kept.append((condition, future))
            elif not future.done():
                future.set_result(result)
        self._waiters = [(c, f) for c, f in kept if not f.done()]

    def take_pending(self) -> list[tuple[int, AttachStream]]:
        """The early clients; the caller owns their sockets."""
        pending, self.pending = self.pending, []
        return pending

    def close_pending(self) -> None:
        """Hang up on clients whose container will not start."""
        for fd, _ in self.take_pending():
            os.close(fd)


class StateAction(StrEnum):
    """What can happen to a container."""

    START = "start"
    EXIT = "exit"
    EXIT_TO_RESTART = "restart"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    REMOVE = "remove"
    REMOVE_FAILED = "remove failed"
    GIVE_UP = "give up"


TRANSITIONS: dict[tuple[Status, StateAction], Status] = {
    (Status.CREATED, StateAction.START): Status.RUNNING,
    (Status.EXITED, StateAction.START): Status.RUNNING,
    (Status.RESTARTING, StateAction.START): Status.RUNNING,
    (Status.RESTARTING, StateAction.GIVE_UP): Status.EXITED,
    (Status.RUNNING, StateAction.EXIT): Status.EXITED,
    (Status.PAUSED, StateAction.EXIT): Status.EXITED,
    (Status.RUNNING, StateAction.EXIT_TO_RESTART): Status.RESTARTING,
    (Status.PAUSED, StateAction.EXIT_TO_RESTART): Status.RESTARTING,
    (Status.RUNNING, StateAction.PAUSE): Status.PAUSED,
    (Status.PAUSED, StateAction.UNPAUSE): Status.RUNNING,
    (Status.CREATED, StateAction.REMOVE): Status.REMOVING,
    (Status.EXITED, StateAction.REMOVE): Status.REMOVING,
    (Status.RESTARTING, StateAction.REMOVE): Status.REMOVING,
    (Status.DEAD, StateAction.REMOVE): Status.REMOVING,
    (Status.REMOVING, StateAction.REMOVE_FAILED): Status.DEAD,
}

LIVE = frozenset({Status.RUNNING, Status.PAUSED})
"""The states in which the container's first process exists."""


def next_status(status: Status, action: StateAction, name: str) -> Status:
    """The state that ``action`` leads to.

    :raises Conflict: it is not possible in this state; ``name`` is for the message.
    """
    following = TRANSITIONS.get((status, action))
    if following is None:
        raise Conflict(f"cannot {action} container {name}: it is {status}")
    return following
