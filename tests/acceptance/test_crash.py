"""The engine is killed with SIGKILL: containers, logs and exit statuses outlive it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers, leaks
from harness.containers import eventually, inspect
from harness.engine import PROJECT, PrivateEngine
from harness.terminal import Terminal

NewEngine = Callable[..., PrivateEngine]
TICK = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done"


@pytest.fixture
def private(new_engine: NewEngine) -> PrivateEngine:
    """An engine that may be killed, with an image."""
    private = new_engine()
    load_image(private, "busybox")
    return private


def moment(text: str) -> float:
    """Seconds since the epoch of a time in a document."""
    return datetime.fromisoformat(text[:26] + "+00:00").timestamp()


def ticks(engine: PrivateEngine, name: str) -> int:
    return engine.cli("jaula", "logs", name).stdout.count("tick")


def test_a_container_and_its_log_go_on_without_the_engine(private: PrivateEngine) -> None:
    words = ("run", "-d", "--name", "tt", "busybox", "sh", "-c", TICK)
    assert private.cli("jaula", *words).returncode == 0
    eventually(lambda: ticks(private, "tt") > 1, "the container logs")
    before, process = ticks(private, "tt"), containers.pid(private, "tt")
    private.kill()
    time.sleep(1.5)
    assert Path(f"/proc/{process}").exists(), "the container died with the engine"
    private.start()
    state = inspect(private, "tt")["State"]
    assert (state["Running"], state["Pid"]) == (True, process)
    assert ticks(private, "tt") >= before + 5, "the log has a gap"
    assert private.cli("jaula", "exec", "tt", "echo", "in").stdout == "in\n"
    assert private.cli("jaula", "stop", "-t", "0", "tt").returncode == 0
    assert inspect(private, "tt")["State"]["Running"] is False


def test_the_next_engine_finds_the_exit_status(private: PrivateEngine) -> None:
    private.cli("jaula", "run", "-d", "--name", "tt", "busybox", "sh", "-c", "sleep 1; exit 42")
    process = containers.pid(private, "tt")
    private.kill()
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the container ends")
    assert leaks.mounts(private) == []
    private.start()
    eventually(lambda: inspect(private, "tt")["State"]["Status"] == "exited", "the exit is found")
    assert inspect(private, "tt")["State"]["ExitCode"] == 42
    assert private.cli("jaula", "wait", "tt").stdout.strip() == "42"


def test_a_container_that_removes_itself_is_removed_by_the_next_engine(
    private: PrivateEngine,
) -> None:
    private.cli("jaula", "run", "-d", "--rm", "--name", "tt", "busybox", "sleep", "1")
    process = containers.pid(private, "tt")
    private.kill()
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the container ends")
    private.start()
    eventually(
        lambda: private.request("GET", "/containers/tt/json").status == 404, "the container is gone"
    )
    containers.assert_clean(private)


def test_the_pause_before_a_restart_goes_on_with_the_next_engine(private: PrivateEngine) -> None:
    """Killed in the middle of a pause: neither is the count of starts lost nor the pause cut."""
    words = ("run", "-d", "--name", "tt", "--restart", "on-failure:6", "busybox", "false")
    assert private.cli("docker", *words).returncode == 0
    eventually(lambda: inspect(private, "tt")["RestartCount"] == 5, "the fifth pause, of 1.6 s")
    ended = inspect(private, "tt")["State"]["FinishedAt"]
    private.kill()
    private.start()
    eventually(lambda: inspect(private, "tt")["RestartCount"] == 6, "the sixth pause, of 3.2 s")
    again = inspect(private, "tt")["State"]["FinishedAt"]
    assert moment(again) - moment(ended) >= 1.5
    private.kill()
    time.sleep(1)
    private.start()
    found = inspect(private, "tt")
    assert (found["State"]["Status"], found["RestartCount"]) == ("restarting", 6)
    assert found["State"]["FinishedAt"] == again
    assert private.cli("docker", "wait", "tt").stdout == "1\n"
    found = inspect(private, "tt")
    assert (found["State"]["Status"], found["RestartCount"]) == ("exited", 6)
    assert moment(found["State"]["FinishedAt"]) - moment(again) >= 3.1


def test_stopped_in_the_pause_it_stays_stopped(private: PrivateEngine) -> None:
    words = ("run", "-d", "--name", "tt", "--restart", "always", "busybox", "false")
    assert private.cli("docker", *words).returncode == 0
    eventually(lambda: inspect(private, "tt")["RestartCount"] >= 3, "three restarts")
    private.kill()
    private.start()
    assert private.cli("docker", "stop", "tt").returncode == 0
    count = inspect(private, "tt")["RestartCount"]
    time.sleep(2)
    found = inspect(private, "tt")
    assert (found["State"]["Status"], found["RestartCount"]) == ("exited", count)


def test_a_published_port_answers_after_the_engine_has_died(private: PrivateEngine) -> None:
    serve = "while :; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 80; done"
    words = ("run", "-d", "--name", "tt", "-p", "127.0.0.1::80", "busybox", "sh", "-c", serve)
    assert private.cli("jaula", *words).returncode == 0
    port = int(private.cli("jaula", "port", "tt", "80").stdout.strip().rpartition(":")[2])
    eventually(lambda: _hello(port), "the port answers")
    private.kill()
    eventually(lambda: _hello(port), "the port answers without the engine")
    private.start()
    eventually(lambda: _hello(port), "the port answers with the next engine")
    private.cli("jaula", "rm", "-f", "tt")
    assert not _hello(port)


def _hello(port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return b"hello" in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def test_an_attached_terminal_is_not_cut(private: PrivateEngine) -> None:
    words = [str(PROJECT / "jaula"), "run", "-it", "--name", "tt", "busybox", "sh"]
    with Terminal(words, private.environment()) as terminal:
        terminal.expect("# ")
        private.kill()
        terminal.send("echo al''ive\r")
        terminal.expect("alive")
    private.start()


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.1, 0.2])
def test_killed_in_the_middle_of_a_start_nothing_leaks(
    private: PrivateEngine, delay: float
) -> None:
    import subprocess

    client = subprocess.Popen(
        [str(PROJECT / "jaula"), "run", "--name", "tt", "busybox", "sleep", "600"],
        env=private.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(delay)
    private.kill()
    client.terminate()
    client.wait(20)
    private.start()
    status = private.request("GET", "/containers/tt/json")
    if status.status == 200:
        state = status.json()["State"]
        assert state["Status"] in ("created", "running", "exited")
        if state["Running"]:
            assert Path(f"/proc/{state['Pid']}").exists()
    private.cli("jaula", "rm", "-f", "tt")
    containers.assert_clean(private)
    assert private.cli("jaula", "run", "--rm", "busybox", "echo", "well").stdout == "well\n"


def test_a_shim_that_is_killed_takes_its_container_and_leaves_nothing(
    private: PrivateEngine,
) -> None:
    import os
    import signal

    private.cli("jaula", "run", "-d", "--name", "tt", "busybox", "sleep", "600")
    process = containers.pid(private, "tt")
    os.kill(containers.parent(process), signal.SIGKILL)
    eventually(lambda: not inspect(private, "tt")["State"]["Running"], "the engine sees the end")
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the container is gone")
    private.cli("jaula", "rm", "-f", "tt")
    containers.assert_clean(private)
