"""Rollbacks: what an engine does with one that a former engine has begun."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.features.checkpoint import container_files
from jaula.features.checkpoint.checkpoint_store import CheckpointStore, Manifest
from jaula.features.checkpoint.rollback_container import Rollbacks, Step, next_step
from jaula.state.container_records import RollbackPhase, RollbackState


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


@pytest.mark.parametrize("replaced", [False, True])
def test_only_the_checkpoint_of_the_former_state_is_removed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """Its name is listed, so a client may have removed it and made one of that name."""
    monkeypatch.setattr(container_files, "discard", lambda services, record: None)
    store, id, former = CheckpointStore(tmp_path), "c" * 64, "before-rollback-0123abcd"
    word = "word of the client" if replaced else former
    images = store.begin(id, former)
    facts = Manifest(id, former, 1, "4.2", "6.18", "x86_64", "sha256:0", transaction=word)
    store.commit(images, facts)
    rollbacks: Any = Rollbacks.__new__(Rollbacks)
    rollbacks._services = SimpleNamespace(service=lambda make: store)
    rollbacks._discard(SimpleNamespace(id=id, name="c", record=None), former)
    assert store.names(id) == ([former] if replaced else [])
