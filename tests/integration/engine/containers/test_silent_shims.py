"""A shim that is stopped costs its own container only, for its engine and for the next one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from conftest import load_image
from harness import containers
from harness.containers import eventually
from harness.engine import SLOW, PrivateEngine

NewEngine = Callable[..., PrivateEngine]
LIMIT = 5.0 * SLOW  # seconds for an answer about a container whose shim is stopped


@pytest.fixture
def two(new_engine: NewEngine) -> Iterator[tuple[PrivateEngine, str, str]]:
    """An engine with two containers; the shim of the first is stopped."""
    engine = new_engine()
    image = load_image(engine, "busybox")
    names = [containers.unique(), containers.unique()]
    for name in names:
        done = engine.cli("jaula", "run", "-d", "--name", name, image, "sleep", "600")
        assert done.returncode == 0, done.stderr
    shim = containers.shim(containers.pid(engine, names[0]))
    os.kill(shim, signal.SIGSTOP)
    yield engine, names[0], names[1]
    engine.remove_containers()
    containers.assert_clean(engine)


@contextmanager
def answers_in(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def exec_status(engine: PrivateEngine, name: str) -> int:
    created = engine.request("POST", f"/containers/{name}/exec", {"Cmd": ["true"]})
    assert created.status == 201, created
    reply = engine.request("POST", f"/exec/{created.json()['Id']}/start", {"Detach": True})
    return reply.status


def check(engine: PrivateEngine, stopped: str, other: str) -> None:
    with answers_in(LIMIT):
        assert containers.inspect(engine, stopped)["State"]["Status"] == "running"
    with answers_in(LIMIT):
        assert engine.request("POST", f"/containers/{stopped}/start").status == 304
    with answers_in(LIMIT):
        assert exec_status(engine, stopped) == 503
    with answers_in(LIMIT):
        assert exec_status(engine, other) == 200


@pytest.mark.slow
@pytest.mark.parametrize("action", ["rm", "kill", "stop"])
def test_the_container_can_be_ended(two: tuple[PrivateEngine, str, str], action: str) -> None:
    engine, stopped, other = two
    check(engine, stopped, other)
    pid = containers.pid(engine, stopped)
    method, path = {
        "rm": ("DELETE", f"/containers/{stopped}?force=1"),
        "kill": ("POST", f"/containers/{stopped}/kill"),
        "stop": ("POST", f"/containers/{stopped}/stop?t=1"),
    }[action]
    with answers_in(LIMIT):
        assert engine.request(method, path).status == 204
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the process is reaped")
    if action != "rm":
        state = containers.inspect(engine, stopped)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)
        assert engine.request("POST", f"/containers/{stopped}/start").status == 204


def test_the_next_engine_serves_and_adopts_it_later(two: tuple[PrivateEngine, str, str]) -> None:
    engine, stopped, other = two
    pid = containers.pid(engine, stopped)
    engine.kill()
    with answers_in(LIMIT):
        engine.start()
    check(engine, stopped, other)
    assert containers.pid(engine, stopped) == pid
    os.kill(containers.shim(pid), signal.SIGCONT)
    eventually(lambda: exec_status(engine, stopped) == 200, "the shim answers")
    assert engine.request("POST", f"/containers/{stopped}/stop?t=0").status == 204
    assert containers.inspect(engine, stopped)["State"]["ExitCode"] == 137


def test_the_next_engine_removes_it_by_force(two: tuple[PrivateEngine, str, str]) -> None:
    engine, stopped, _ = two
    pid = containers.pid(engine, stopped)
    engine.kill()
    engine.start()
    with answers_in(LIMIT):
        assert engine.request("DELETE", f"/containers/{stopped}?force=1").status == 204
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the process is reaped")


def test_a_removal_by_force_ends_a_start_that_hangs(new_engine: NewEngine) -> None:
    """The zygote is stopped, so that no shim is forked; it runs again afterwards."""
    from concurrent.futures import ThreadPoolExecutor

    engine = new_engine()
    image = load_image(engine, "busybox")
    name = containers.unique()
    done = engine.cli("jaula", "create", "--name", name, image, "sleep", "600")
    assert done.returncode == 0, done.stderr
    assert engine.process is not None
    (zygote,) = containers.children(engine.process.pid, "jaula-zygote")
    os.kill(zygote, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as pool:
            start = pool.submit(engine.request, "POST", f"/containers/{name}/start")
            time.sleep(0.5)
            with answers_in(2 * LIMIT):
                assert engine.request("DELETE", f"/containers/{name}?force=1").status == 204
            assert start.result().status == 500
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert engine.cli("jaula", "run", "--rm", image, "true").returncode == 0
    containers.assert_clean(engine)
