"""The transitions of a container's status; every other one is refused."""

from __future__ import annotations

import pytest

from jaula.engine.model.container import LIVE, TRANSITIONS, StateAction, next_status
from jaula.errors import Conflict
from jaula.state.container_records import Status


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("action", StateAction)
def test_a_transition_is_in_the_table_or_refused(status: Status, action: StateAction) -> None:
    if (status, action) in TRANSITIONS:
        assert next_status(status, action, "x") is TRANSITIONS[status, action]
    else:
        with pytest.raises(Conflict, match="cannot"):
            next_status(status, action, "x")


def test_only_containers_with_a_process_can_be_paused() -> None:
    pausable = {status for status, action in TRANSITIONS if action is StateAction.PAUSE}
    assert pausable <= LIVE


def test_a_live_container_cannot_be_removed() -> None:
    assert not {s for s, a in TRANSITIONS if a is StateAction.REMOVE} & LIVE


def test_every_state_but_the_first_is_reached_and_every_one_is_left() -> None:
    assert set(TRANSITIONS.values()) == set(Status) - {Status.CREATED}
    assert {status for status, _ in TRANSITIONS} == set(Status)
