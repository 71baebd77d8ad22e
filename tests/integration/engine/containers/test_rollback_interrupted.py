"""Rollbacks that fail, and SIGKILL of the engine at each step: the old or the new state, no mix."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers, leaks
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


def obstacle(engine: FaultyEngine, words: str) -> None:
    """Let restores meet an obstacle; '' for none."""
    engine.fault.with_name("obstacle").write_text(words)


def roll_back_alive(engine: FaultyEngine) -> str:
    """Roll back without a kill; return the error."""
    engine.fault.unlink(missing_ok=True)
    return engine.cli("jaula", "rollback", NAME, "one").stderr


def begin(engine: FaultyEngine, *flags: str) -> None:
    """Run the program, with a snapshot ``one`` of its first state; it has the later one now."""
    flags = ("-v", "kept:/data", *flags)
    jaula(engine, "run", "-d", "--name", NAME, *flags, "busybox", "sh", "-c", PROGRAM)
    jaula(engine, "exec", NAME, "sh", "-c", "for at in /data /root; do echo first >$at/file; done")
    eventually(lambda: state(engine) == FIRST, "the program has begun")
    jaula(engine, "snapshot", NAME, "one")
    change(engine)


def end(engine: FaultyEngine) -> None:
    jaula(engine, "rm", "-f", NAME)
    jaula(engine, "volume", "rm", "kept")


def outside(document: dict[str, Any]) -> tuple[Any, ...]:
    """Return what others see of a container: its addresses and ports."""
    networks = document["NetworkSettings"]["Networks"].values()
    addresses = [(each["IPAddress"], each["MacAddress"]) for each in networks]
    return addresses, document["NetworkSettings"]["Ports"]


def checkpoints(engine: FaultyEngine) -> list[str]:
    return jaula(engine, "checkpoint", "ls", NAME).split()[2:]


def left(engine: FaultyEngine) -> list[str]:
    """Return files of rollbacks that are left."""
    return [
        str(each) for each in engine.root.rglob("*") if re.search("[._-](staged|former)", each.name)
    ]


@pytest.mark.parametrize("words", ["fail", "damage", "source", "memory", "criu"])
def test_a_rollback_that_fails_leaves_the_container_running_as_before(
    faulty: FaultyEngine, tmp_path: Path, words: str
) -> None:
    source = tmp_path / "source"
    source.write_text("bound")
    flags = ("-p", "127.0.0.1::80", "--restart", "always")
    # The former state needs its bind mounts, too.
    begin(faulty, *flags, *(("-v", f"{source}:/bound") if words == "source" else ()))
    before = inspect(faulty, NAME)
    obstacle(faulty, words)
    error = roll_back_alive(faulty)
    if words == "source":
        assert "its former state cannot be continued" in error, error
        (kept,) = [name for name in checkpoints(faulty) if name != "one"]
        assert f"jaula start --checkpoint {kept} {NAME}" in error
        assert not is_running(faulty)
        source.write_text("bound")
        jaula(faulty, "start", "--checkpoint", kept, NAME)
    else:
        assert "the container runs again as before" in error, error
        assert checkpoints(faulty) == ["one"]
        assert outside(inspect(faulty, NAME)) == outside(before)
    assert state(faulty) == LATER
    assert left(faulty) == []
    if words != "damage":
        obstacle(faulty, "")
        assert roll_back_alive(faulty) == ""
        assert state(faulty) == FIRST
    end(faulty)


@pytest.mark.parametrize("flags", [(), ("--rm",), ("--restart", "always")])
def test_a_former_state_that_cannot_be_continued_is_kept(
    faulty: FaultyEngine, flags: tuple[str, ...]
) -> None:
    begin(faulty, *flags)
    obstacle(faulty, "fail all")
    error = roll_back_alive(faulty)
    (kept,) = [name for name in checkpoints(faulty) if name != "one"]
    assert f"its processes are in the checkpoint {kept}" in error
    assert not is_running(faulty)
    obstacle(faulty, "")
    faulty.stop()
    faulty.start()
    assert not is_running(faulty)
    jaula(faulty, "start", "--checkpoint", kept, NAME)
    assert state(faulty) == LATER
    assert left(faulty) == []
    end(faulty)


def test_a_stopped_container_has_its_files_after_a_rollback_that_fails(
    faulty: FaultyEngine,
) -> None:
    begin(faulty)
    jaula(faulty, "stop", "-t", "0", NAME)
    obstacle(faulty, "fail")
    error = roll_back_alive(faulty)
    assert "its files are as before, and it does not run" in error, error
    assert not is_running(faulty)
    jaula(faulty, "start", NAME)
    assert jaula(faulty, "exec", NAME, "cat", "/data/file", "/root/file").split() == ["later"] * 2
    assert checkpoints(faulty) == ["one"]
    assert left(faulty) == []
    end(faulty)


def test_connections_go_on_after_a_rollback_that_fails(faulty: FaultyEngine) -> None:
    program = "while usleep 100000; do echo beat; done | nc -l -p 80"
    jaula(faulty, "run", "-d", "--name", NAME, "busybox", "sh", "-c", program)
    jaula(faulty, "snapshot", NAME, "one")
    networks = inspect(faulty, NAME)["NetworkSettings"]["Networks"]
    address = networks["bridge"]["IPAddress"]
    with (
        socket.create_connection((address, 80), timeout=30) as client,
        client.makefile("rb") as lines,
    ):
        assert lines.readline() == b"beat\n"
        obstacle(faulty, "fail")
        assert "the container runs again as before" in roll_back_alive(faulty)
        end = time.monotonic() + 3  # what was sent before is read at once
        while time.monotonic() < end:
            assert lines.readline() == b"beat\n"
    jaula(faulty, "rm", "-f", NAME)


def test_a_complete_checkpoint_is_kept_if_its_shim_is_lost(faulty: FaultyEngine) -> None:
    """The shim is killed after the record, so the container ends without the checkpoint's order."""
    begin(faulty, "--network", "none")
    obstacle(faulty, "lost")
    jaula(faulty, "checkpoint", "create", NAME, "two")
    obstacle(faulty, "")
    assert not is_running(faulty)
    jaula(faulty, "start", "--checkpoint", "two", NAME)
    assert state(faulty) == LATER
    end(faulty)


def test_a_checkpoint_that_cannot_be_recorded_leaves_the_container_running(
    faulty: FaultyEngine,
) -> None:
    begin(faulty, "--network", "none")
    obstacle(faulty, "full")
    error = faulty.cli("jaula", "checkpoint", "create", NAME, "two").stderr
    assert "no space left on device" in error
    assert state(faulty) == LATER
    assert checkpoints(faulty) == ["one"]
    end(faulty)


def test_a_state_that_cannot_be_saved_is_not_given_up(faulty: FaultyEngine) -> None:
    begin(faulty)
    jaula(faulty, "pause", NAME)
    error = roll_back_alive(faulty)
    assert "it is paused (unpause it first" in error
    jaula(faulty, "unpause", NAME)
    process = containers.pid(faulty, NAME)
    tracer = "import ctypes, sys, time; ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0)"
    words = [sys.executable, "-c", f"{tracer}; print(flush=True); time.sleep(60)", str(process)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as debugger:  # PTRACE_SEIZE
        assert debugger.stdout is not None
        debugger.stdout.readline()
        error = roll_back_alive(faulty)
        debugger.kill()
    assert "its present state cannot be saved: process" in error, error
    assert "stop it first" in error
    assert state(faulty) == LATER
    assert checkpoints(faulty) == ["one"]
    assert left(faulty) == []
    jaula(faulty, "stop", "-t", "0", NAME)
    assert roll_back_alive(faulty) == ""
    assert state(faulty) == FIRST
    end(faulty)


@pytest.mark.timeout(400)  # each kill is followed by a start of the engine
def test_a_killed_engine_loses_nothing_of_a_rollback_that_fails(faulty: FaultyEngine) -> None:
    begin(faulty, "--restart", "always", "--network", "none")
    obstacle(faulty, "fail")
    faulty.fault.write_text("0")
    assert faulty.cli("jaula", "rollback", NAME, "one").returncode != 0
    count = int(faulty.fault.read_text())
    killed = 0
    for step in range(1, count + 1, max(1, count // 16)):
        killed += roll_back(faulty, step, (), fails=True)
        assert state(faulty) == LATER, (step, count)
        eventually(lambda: checkpoints(faulty) == ["one"] and not left(faulty), "nothing is left")
    assert killed > 10
    end(faulty)


FIRST, LATER = ("first",) * 4, ("later",) * 4


def is_running(engine: PrivateEngine) -> bool:
    return bool(inspect(engine, NAME)["State"]["Running"])


def roll_back(
    engine: FaultyEngine, step: int, where: tuple[str, ...], *, fails: bool = False
) -> bool:
    """Roll back with a kill at a step; return whether the engine was killed."""
    engine.fault.write_text(str(step))
    done = engine.cli("jaula", "rollback", *where, NAME, "one")
    assert engine.process is not None
    if done.returncode == 0 or (fails and "the container runs again" in done.stderr):
        return False
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
        if not elsewhere:
            eventually(lambda: checkpoints(faulty) == ["one"], "no former state is left")
        eventually(lambda: left(faulty) == [], "no former files are left")
        if found[-1] == LATER:
            roll_back(faulty, 0, where)
    assert {FIRST, LATER} == set(found)
    if elsewhere:
        jaula(faulty, "checkpoint", "rm", *where, NAME, "one")
    jaula(faulty, "rm", "-f", NAME)
    jaula(faulty, "volume", "rm", "kept")
