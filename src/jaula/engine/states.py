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


class Action(StrEnum):
    """What can happen to a container."""

    START = "start"
    EXIT = "exit"
    EXIT_TO_RESTART = "restart"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    REMOVE = "remove"
    REMOVE_FAILED = "remove failed"
    GIVE_UP = "give up"


TRANSITIONS: dict[tuple[Status, Action], Status] = {
    (Status.CREATED, Action.START): Status.RUNNING,
    (Status.EXITED, Action.START): Status.RUNNING,
    (Status.RESTARTING, Action.START): Status.RUNNING,
    (Status.RESTARTING, Action.GIVE_UP): Status.EXITED,
    (Status.RUNNING, Action.EXIT): Status.EXITED,
    (Status.PAUSED, Action.EXIT): Status.EXITED,
    (Status.RUNNING, Action.EXIT_TO_RESTART): Status.RESTARTING,
    (Status.PAUSED, Action.EXIT_TO_RESTART): Status.RESTARTING,
    (Status.RUNNING, Action.PAUSE): Status.PAUSED,
    (Status.PAUSED, Action.UNPAUSE): Status.RUNNING,
    (Status.CREATED, Action.REMOVE): Status.REMOVING,
    (Status.EXITED, Action.REMOVE): Status.REMOVING,
    (Status.RESTARTING, Action.REMOVE): Status.REMOVING,
    (Status.DEAD, Action.REMOVE): Status.REMOVING,
    (Status.REMOVING, Action.REMOVE_FAILED): Status.DEAD,
}

LIVE = frozenset({Status.RUNNING, Status.PAUSED})
"""The states in which the container's first process exists."""


def after(status: Status, action: Action, name: str) -> Status:
    """The state that ``action`` leads to.

    :raises Conflict: it is not possible in this state; ``name`` is for the message.
    """
    following = TRANSITIONS.get((status, action))
    if following is None:
        raise Conflict(f"cannot {action} container {name}: it is {status}")
    return following
