"""SIGKILL of engine, shim or helper at each step of a start: nothing lost, left or run twice."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import leaks
from harness.audits import Audited
from harness.containers import eventually, inspect
from harness.engine import SLOW
from harness.fault_points import STEPS
from harness.faulty_engine import FaultyEngine
from jaula.features.verify.model.result import Verdict

LIMIT = 30.0 * SLOW  # seconds
AFTER_ANSWER = ("shim has answered", "helper has answered")


class StartEngine(FaultyEngine):
    """An engine with the steps of :mod:`harness.fault_points`."""

    script = "fault_points.py"


@pytest.fixture(scope="module")
def faulty(worker_index: int) -> Iterator[FaultyEngine]:
    private = StartEngine((worker_index + 83) % 250 + 1)
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        (private.root / "data").mkdir(mode=0o777)
        (private.root / "data").chmod(0o777)
        yield private


@pytest.fixture(autouse=True)
def no_containers(faulty: FaultyEngine) -> Iterator[None]:
    yield
    if faulty.process is None or faulty.process.poll() is not None:
        faulty.start()
    faulty.remove_containers()
    for file in (faulty.root / "data").iterdir():
        file.unlink()


def create(engine: FaultyEngine, name: str, script: str, **host: Any) -> Path:
    """Create a container whose program writes one line for each run; return that file."""
    runs = engine.root / "data" / name
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", f"echo run >> /data/{name}; echo output; {script}"],
        "HostConfig": {"Binds": [f"{runs.parent}:/data"], "ShmSize": 1 << 20, **host},
    }
    reply = engine.request("POST", f"/containers/create?name={name}", body)
    assert reply.status == 201, reply
    return runs


def runs_in(file: Path) -> int:
    return file.read_text().count("run\n") if file.exists() else 0


def start(engine: FaultyEngine, name: str, fault: str = "") -> int:
    """Start a container; return the status, 0 if the engine ended before it answered."""
    if fault:
        engine.fault.write_text(fault)
    try:
        return engine.request("POST", f"/containers/{name}/start").status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        engine.fault.unlink(missing_ok=True)


def next_engine(engine: FaultyEngine) -> None:
    assert engine.process is not None
    engine.process.wait(10)
    engine.process = None
    engine.start()


def assert_nothing_left(engine: FaultyEngine) -> None:
    eventually(lambda: not leaks.of_containers(engine), "nothing is left of the container")
    done = engine.cli("jaula", "system", "check")
    assert (done.returncode, done.stdout) == (0, "No problems found.\n")


def remove(engine: FaultyEngine, name: str) -> None:
    assert engine.request("DELETE", f"/containers/{name}?force=1").status == 204
    assert_nothing_left(engine)


def marked(steps: Sequence[str]) -> list[object]:
    """Mark every step but the first slow."""
    return [
        pytest.param(step, marks=pytest.mark.slow if number else ())
        for number, step in enumerate(steps)
    ]


@pytest.mark.parametrize("step", marked(STEPS["engine"]))
def test_the_next_engine_adopts_a_program_that_runs(faulty: FaultyEngine, step: str) -> None:
    runs = create(faulty, "goes-on", "exec sleep 600")
    start(faulty, "goes-on", f"{step}:engine")
    next_engine(faulty)
    if step == "engine asks":
        assert inspect(faulty, "goes-on")["State"]["Status"] == "created"
        assert start(faulty, "goes-on") == 204
    state = inspect(faulty, "goes-on")["State"]
    assert (state["Status"], state["Running"], state["Error"]) == ("running", True, "")
    assert Path(f"/proc/{state['Pid']}").exists()
    assert not state["StartedAt"].startswith("0001")
    assert start(faulty, "goes-on") == 304
    eventually(lambda: faulty.cli("jaula", "logs", "goes-on").stdout == "output\n", "the log")
    address = faulty.cli("jaula", "exec", "goes-on", "ip", "-4", "addr", "show", "eth0").stdout
    endpoint = inspect(faulty, "goes-on")["NetworkSettings"]["Networks"]["bridge"]
    assert f"inet {endpoint['IPAddress']}/" in address
    assert runs_in(runs) == 1
    rows = Audited(faulty, "goes-on").rows()
    assert rows["request seal"].verdict is rows["spec seal"].verdict is Verdict.HOLDS
    faulty.kill()
    faulty.start()  # it was recorded
    assert inspect(faulty, "goes-on")["State"]["Pid"] == state["Pid"]
    remove(faulty, "goes-on")


@pytest.mark.parametrize("step", marked(STEPS["engine"]))
def test_the_next_engine_records_a_program_that_ended(faulty: FaultyEngine, step: str) -> None:
    runs = create(faulty, "ends", "exit 7")
    start(faulty, "ends", f"{step}:engine")
    if step != "engine asks":
        eventually(lambda: runs_in(runs) == 1, "the program runs")
    next_engine(faulty)
    state = inspect(faulty, "ends")["State"]
    if step == "engine asks":
        assert state["Status"] == "created"
        assert runs_in(runs) == 0
    else:
        eventually(
            lambda: inspect(faulty, "ends")["State"]["Status"] == "exited", "the exit is recorded"
        )
        state = inspect(faulty, "ends")["State"]
        assert (state["ExitCode"], state["Error"]) == (7, "")
        assert not state["StartedAt"].startswith("0001")
        assert state["StartedAt"] < state["FinishedAt"]
        assert faulty.cli("jaula", "logs", "ends").stdout == "output\n"
        assert runs_in(runs) == 1
    remove(faulty, "ends")


def test_a_start_that_failed_without_an_engine_is_recorded(faulty: FaultyEngine) -> None:
    body = {"Image": "busybox", "Cmd": ["/no/such/program"]}
    assert faulty.request("POST", "/containers/create?name=fails", body).status == 201
    start(faulty, "fails", "helper begins:engine")
    next_engine(faulty)
    state = inspect(faulty, "fails")["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "/no/such/program" in state["Error"]
    remove(faulty, "fails")


def zygote(engine: FaultyEngine) -> int:
    assert engine.process is not None
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (directory / "stat").read_text()
            parent = int(fields.rpartition(")")[2].split()[1])
            if "(jaula-zygote)" in fields and parent == engine.process.pid:
                return int(directory.name)
    raise AssertionError("the engine has no zygote")


def test_a_late_zygote_starts_nothing(faulty: FaultyEngine) -> None:
    """The next engine has undone the start when the zygote reads the request."""
    runs = create(faulty, "late", "exec sleep 600")
    ports = Path("/sys/class/net") / faulty.bridge / "brif"
    # A start without a ready sandbox asks the zygote for one first.
    eventually(lambda: len(os.listdir(ports)) >= leaks.SANDBOX_POOL, "the sandboxes are ready")
    late = zygote(faulty)
    os.kill(late, signal.SIGSTOP)
    try:
        assert start(faulty, "late", "engine has asked:engine") == 0
        next_engine(faulty)
        assert inspect(faulty, "late")["State"]["Status"] == "created"
    finally:
        os.kill(late, signal.SIGCONT)
    eventually(lambda: not Path(f"/proc/{late}").exists(), "the zygote ends")
    assert_nothing_left(faulty)
    assert runs_in(runs) == 0
    assert start(faulty, "late") == 204
    eventually(lambda: runs_in(runs) == 1, "the program runs")
    remove(faulty, "late")


@pytest.mark.parametrize("policy", ["always", "no"])
def test_an_interrupted_start_follows_the_policy(faulty: FaultyEngine, policy: str) -> None:
    removes = policy == "no"
    host = {"RestartPolicy": {"Name": policy}, "AutoRemove": removes}
    runs = create(faulty, "policy", "exit 3", **host)
    start(faulty, "policy", "shim has the process:engine")
    eventually(lambda: runs_in(runs) == 1, "the program runs")
    next_engine(faulty)
    if removes:
        eventually(
            lambda: faulty.request("GET", "/containers/policy/json").status == 404, "it is removed"
        )
        assert runs_in(runs) == 1
        assert_nothing_left(faulty)
    else:
        eventually(lambda: runs_in(runs) > 1, "it is restarted")
        remove(faulty, "policy")


@pytest.mark.parametrize("step", STEPS["shim"])
def test_nothing_is_left_if_engine_and_shim_are_killed(faulty: FaultyEngine, step: str) -> None:
    runs = create(faulty, "both", "exec sleep 600")
    start(faulty, "both", f"{step}:engine+shim")
    next_engine(faulty)
    state = inspect(faulty, "both")["State"]
    assert (state["Status"], state["Running"]) in (("created", False), ("exited", False))
    if state["Status"] == "exited":
        assert (state["ExitCode"], bool(state["Error"])) == (255, True)
    assert_nothing_left(faulty)
    before = runs_in(runs)
    assert before <= (state["Status"] == "exited")
    assert start(faulty, "both") == 204
    eventually(lambda: runs_in(runs) == before + 1, "it runs again")
    remove(faulty, "both")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["shim listens", "helper has the root", "helper has created"])
def test_a_stopped_shim_of_a_start_does_not_hold_the_next_engine(
    faulty: FaultyEngine, step: str
) -> None:
    runs = create(faulty, "stuck", "exec sleep 600")
    start(faulty, "stuck", f"{step}:engine+-shim")
    begun = time.monotonic()
    next_engine(faulty)
    assert time.monotonic() - begun < LIMIT
    assert inspect(faulty, "stuck")["State"]["Status"] in ("created", "running", "exited")
    assert time.monotonic() - begun < LIMIT
    remove(faulty, "stuck")
    assert runs_in(runs) <= 1
    assert time.monotonic() - begun < 2 * LIMIT


KILLS = [(step, target, "private") for target in ("shim", "helper") for step in STEPS[target]]
KILLS += [(step, "shim", "shareable") for step in ("shim begins", "helper has created")]


@pytest.mark.parametrize(("step", "target", "ipc"), KILLS)
def test_nothing_is_left_of_a_failed_start(
    faulty: FaultyEngine, step: str, target: str, ipc: str
) -> None:
    runs = create(faulty, "killed", "exec sleep 600", IpcMode=ipc)
    status = start(faulty, "killed", f"{step}:{target}")
    if step in AFTER_ANSWER:
        assert status in (204, 500)
    else:
        assert status == 500
    if target == "helper" and step in AFTER_ANSWER and status == 204:
        assert inspect(faulty, "killed")["State"]["Running"]  # its work was done
        remove(faulty, "killed")
        return
    eventually(lambda: not inspect(faulty, "killed")["State"]["Running"], "it does not run")
    assert_nothing_left(faulty)
    state = inspect(faulty, "killed")["State"]
    assert (state["Status"], state["ExitCode"]) in (("created", 125), ("exited", 137))
    assert state["Error"]
    before = runs_in(runs)
    assert before <= 1
    assert start(faulty, "killed") == 204
    eventually(lambda: runs_in(runs) == before + 1, "it runs again")
    remove(faulty, "killed")
