"""Slots of sandboxed processes."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from jaula.sandbox.sandbox_worker import WorkerCancelled
from jaula.sandbox.slots import Stop, WorkerSlots


def _go_on() -> None:
    return


def _wait() -> None:
    raise BlockingIOError


def test_one_caller_leaves_slots_to_another() -> None:
    slots = WorkerSlots(8)
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(slots.take("a", _go_on))
        with pytest.raises(BlockingIOError), slots.take("a", _wait):
            pass
        held.enter_context(slots.take("b", _go_on))


def test_a_slot_that_becomes_free_is_taken_by_the_one_that_waits() -> None:
    slots = WorkerSlots(2)
    waiting, taken = threading.Event(), threading.Event()

    def check() -> None:
        waiting.set()

    def wait() -> None:
        with slots.take("a", check):
            taken.set()

    with slots.take("a", _go_on):
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(30)
        assert not taken.is_set()
    assert taken.wait(30)
    thread.join(30)


def test_a_request_that_ends_does_not_wait_for_a_slot() -> None:
    slots = WorkerSlots(2)
    stop = Stop()
    stop.stop()
    with (
        slots.take("a", _go_on),
        pytest.raises(WorkerCancelled),
        slots.take("a", stop.check),
    ):
        pass
    with pytest.raises(WorkerCancelled), slots.take("a", stop.check):
        pass
    with slots.take("a", _go_on):
        pass
