"""The life of a container.

::

    created --start--> running --exit--> exited --start--> running
                       running <-pause/unpause-> paused --exit--> exited
                       running --exit, policy--> restarting --start--> running
    created exited dead --remove--> removing --(failed)--> dead

``restarting`` means: it ended, and the engine will start it again after a pause. ``dead`` means
that a removal failed half-way; only another removal is possible. A container whose start failed
stays ``created`` (or ``exited``, where it ran before), as with Docker.
"""

from __future__ import annotations

from enum import StrEnum

from jaula.errors import Conflict
from jaula.state.records import Status


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
