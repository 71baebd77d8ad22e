"""SIGKILL of the engine at each step of a rollback: the old or the new state, never a mix."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conftest import load_image
from harness import leaks
from harness.containers import eventually, inspect
from harness.engine import PrivateEngine
from harness.faulty_engine import FaultyEngine

pytestmark = pytest.mark.criu

NAME = "counted"
PROGRAM = """
memory=first
trap 'memory=later' USR1
while :; do
    for at in /data /root; do echo $memory >$at/new; mv $at/new $at/memory; done
    usleep 20000
done
"""


class RollbackEngine(FaultyEngine):
    """An engine with the steps of :mod:`harness.rollback_faults`."""

    script = "rollback_faults.py"


@pytest.fixture
def faulty(worker_index: int) -> Iterator[FaultyEngine]:
    private = RollbackEngine((worker_index + 89) % 250 + 1)
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private
        if private.process is None or private.process.poll() is not None:
            private.start()
        private.remove_containers()


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr, engine.log_tail())
    return done.stdout


def state(engine: PrivateEngine) -> tuple[str, ...]:
    """Return what the memory of the program, its root and its volume have."""
    script = "sleep 0.1; cat /data/memory /root/memory /data/file /root/file"
    return tuple(jaula(engine, "exec", NAME, "sh", "-c", script).split())


def change(engine: PrivateEngine) -> None:
    """Give the program, its root and its volume another state than the snapshot has."""
    jaula(engine, "exec", NAME, "sh", "-c", "for at in /data /root; do echo later >$at/file; done")
    jaula(engine, "kill", "-s", "USR1", NAME)
    eventually(lambda: state(engine) == LATER, "the state is another one")


FIRST, LATER = ("first",) * 4, ("later",) * 4


def is_running(engine: PrivateEngine) -> bool:
    return bool(inspect(engine, NAME)["State"]["Running"])


def roll_back(engine: FaultyEngine, step: int, where: tuple[str, ...]) -> bool:
    """Roll back with a kill at a step; return whether the engine was killed."""
    engine.fault.write_text(str(step))
    done = engine.cli("jaula", "rollback", *where, NAME, "one")
    if done.returncode == 0:
        return False
    assert engine.process is not None
    engine.process.wait(timeout=10)
    engine.fault.unlink()
    engine.start()
    try:
        eventually(lambda: is_running(engine), "the container runs after the kill")
    except AssertionError:
        found = inspect(engine, NAME)["State"]
        raise AssertionError((step, found, engine.log_tail())) from None
    return True


@pytest.mark.timeout(400)  # each kill is followed by a start of the engine
@pytest.mark.parametrize(("elsewhere", "steps"), [(False, 24), (True, 8)])
def test_a_killed_engine_leaves_the_old_or_the_new_state(
    faulty: FaultyEngine, elsewhere: bool, steps: int
) -> None:
    """``steps`` is about the number of kills."""
    where = ("--checkpoint-dir", str(faulty.run / "elsewhere")) if elsewhere else ()
    flags = ("--restart", "always", "--network", "none", "-v", "kept:/data")
    jaula(faulty, "run", "-d", "--name", NAME, *flags, "busybox", "sh", "-c", PROGRAM)
    jaula(faulty, "exec", NAME, "sh", "-c", "for at in /data /root; do echo first >$at/file; done")
    eventually(lambda: state(faulty) == FIRST, "the program has begun")
    jaula(faulty, "snapshot", *where, NAME, "one")
    change(faulty)
    assert not roll_back(faulty, 0, where)
    assert state(faulty) == FIRST
    count = int(faulty.fault.read_text())
    found = []
    for step in range(1, count + 1, max(1, count // steps)):
        change(faulty)
        if not roll_back(faulty, step, where):
            continue
        found.append(state(faulty))
        assert found[-1] in (FIRST, LATER), (step, count, found[-1])
        if found[-1] == LATER:
            roll_back(faulty, 0, where)
    assert {FIRST, LATER} == set(found)
    if elsewhere:
        jaula(faulty, "checkpoint", "rm", *where, NAME, "one")
    jaula(faulty, "rm", "-f", NAME)
    jaula(faulty, "volume", "rm", "kept")
