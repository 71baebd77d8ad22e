"""Rollbacks: what an engine does with one that a former engine has begun."""

from __future__ import annotations

import pytest

from jaula.engine.containers.rollback import Step, next_step
from jaula.state.records import RollbackPhase, RollbackState


@pytest.mark.parametrize(
    ("phase", "live", "step"),
    [
        (RollbackPhase.KEEP, True, Step.ABANDON),
        (RollbackPhase.KEEP, False, Step.ABANDON),  # it has exited by itself
        (RollbackPhase.REPLACE, True, Step.ABANDON),  # the dump has let it go
        (RollbackPhase.REPLACE, False, Step.GO_ON),
        (RollbackPhase.CONTINUED, True, Step.FINISH),
        (RollbackPhase.CONTINUED, False, Step.FINISH),  # it ran, and has exited
        (RollbackPhase.UNDO, False, Step.UNDO),
        (RollbackPhase.UNDONE, True, Step.FINISH),
        (RollbackPhase.UNDONE, False, Step.FINISH),
    ],
)
def test_the_next_engine_undoes_or_finishes_a_rollback(
    phase: RollbackPhase, live: bool, step: Step
) -> None:
    assert next_step(phase, live=live) is step


@pytest.mark.parametrize("phase", list(RollbackPhase))
def test_a_start_that_is_undone_leaves_the_phase_as_it_was(phase: RollbackPhase) -> None:
    state = RollbackState(phase, "former")
    started = {RollbackPhase.REPLACE: "continued", RollbackPhase.UNDO: "undone"}
    assert state.with_start.phase == started.get(phase, phase)
    if phase in started:
        assert state.with_start.without_start == state


def test_a_rollback_of_an_older_engine_goes_on() -> None:
    assert next_step(RollbackState().phase, live=False) is Step.GO_ON
