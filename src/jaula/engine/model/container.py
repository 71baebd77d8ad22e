"""A container in the engine: its record, its runtime state, and the transitions of its status.

::

    created --start--> running --exit--> exited --start--> running
                       running <-pause/unpause-> paused --exit--> exited
                       running --exit, policy--> restarting --start--> running
    created exited dead --remove--> removing --(failed)--> dead

``restarting``: it exited, and the engine will start it again after a delay. ``dead``: a removal
failed halfway; only another removal is possible. A container whose start failed stays ``created``
(or ``exited``, if it ran before), as with Docker.
"""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from jaula.errors import Conflict
from jaula.spec.api_params import WaitResult
from jaula.state.container_records import ContainerRecord, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jaula.engine.userns.id_ranges import IdMaps
    from jaula.runtime.runtime_client import Shim
    from jaula.runtime.shim_protocol import AttachStream


class HeldInit(NamedTuple):
    """The first process of a restored container that waits for the commit of its migration.

    ``namespaces`` are descriptors by OCI type, which the migration closes.
    """

    pid: int
    namespaces: dict[str, int]


class Container:
    """A record with its shim, its waiters and the clients that attached before the start.

    ``lock`` is held through every transition. ``pending`` are sockets of clients that attached
    before there was a process, ``inherited`` descriptors for its program; this object owns them
    until a start takes them. A start calls
    ``prepare`` once the container's ids are known; it may change the mounts. ``transient_env`` are
    environment variables that are never stored in the database; the spec is then written to
    ``bundle``. ``starting`` is the shim that creates the container; a removal by force kills it.
    ``run_dir`` is set while it runs.
    ``netns`` is a network namespace that a start gives to a sandbox, -1 if the runtime creates it.
    ``held`` is set while a migration restores it: others of its group join its namespaces then.
    ``image_manifest`` is the OCI descriptor of its image's manifest, None until it is read.
    ``refusals`` are the operations that a layer has refused since the engine's start, by layer.
    """

    def __init__(self, record: ContainerRecord) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.shim: Shim | None = None
        self.starting: Shim | None = None
        self.pending: list[tuple[int, AttachStream]] = []
        self.inherited: list[int] = []
        self.execs: set[str] = set()
        self.exited = asyncio.Event()
        if not self.live:
            self.exited.set()
        self.restart: asyncio.Task[None] | None = None
        self.prepare: Callable[[IdMaps], Awaitable[None]] | None = None
        self.transient_env: tuple[str, ...] = ()
        self.bundle = ""
        self.run_dir = ""
        self.netns = -1
        self.held: HeldInit | None = None
        self.removing = False
        self.answered = False  # a client of this engine knows how the last request for it ended
        self.image_manifest: dict[str, Any] | None = None
        self.refusals: dict[str, int] = {}
        self._waiters: list[tuple[str, asyncio.Future[WaitResult]]] = []

    @property
    def id(self) -> str:
        """Return the full id."""
        return self.record.id

    @property
    def name(self) -> str:
        """Return the name without a slash."""
        return self.record.name

    @property
    def live(self) -> bool:
        """Return whether init exists."""
        return self.record.status in LIVE

    def change(self, **fields: Any) -> ContainerRecord:
        """Replace fields of the record in memory; the container store writes it."""
        self.record = msgspec.structs.replace(self.record, **fields)
        return self.record

    def wait(self, condition: str) -> asyncio.Future[WaitResult]:
        """Return a future that :meth:`notify` resolves for ``condition``."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        self._waiters.append((condition, future))
        return future

    def notify(self, conditions: tuple[str, ...], result: WaitResult) -> None:
        """Resolve the futures of those who wait for one of ``conditions``."""
        waiting = []
        for condition, future in self._waiters:
            if condition not in conditions:
                waiting.append((condition, future))
            elif not future.done():
                future.set_result(result)
        self._waiters = [(c, f) for c, f in waiting if not f.done()]

    def take_pending(self) -> list[tuple[int, AttachStream]]:
        """Return the clients that attached early; the caller owns their sockets."""
        pending, self.pending = self.pending, []
        return pending

    def take_inherited(self) -> list[int]:
        """Return the descriptors for the program; the caller owns them."""
        inherited, self.inherited = self.inherited, []
        return inherited

    def close_inherited(self) -> None:
        """Close the descriptors for the program."""
        for fd in self.take_inherited():
            os.close(fd)

    def close_pending(self) -> None:
        """Close the sockets of clients, and those for the program: the start is given up."""
        for fd, _ in self.take_pending():
            os.close(fd)
        self.close_inherited()


# -- transitions ---------------------------------------------------------------------------------


class StateAction(StrEnum):
    """An action that changes the status of a container."""

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
"""The states in which init exists."""


def next_status(status: Status, action: StateAction, name: str) -> Status:
    """Return the status after ``action``.

    :raises Conflict: when the present status does not allow it; ``name`` is for the message.
    """
    result = TRANSITIONS.get((status, action))
    if result is None:
        raise Conflict(f"cannot {action} container {name}: it is {status}")
    return result
