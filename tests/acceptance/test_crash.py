"""After SIGKILL of the engine, containers, logs and exit statuses persist."""

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
def crashing(new_engine: NewEngine) -> PrivateEngine:
    """Return an engine that the test may kill, with an image."""
    crashing = new_engine()
    load_image(crashing, "busybox")
    return crashing


def moment(text: str) -> float:
    """Return the seconds since the epoch of a time in a document."""
    return datetime.fromisoformat(text[:26] + "+00:00").timestamp()


def ticks(engine: PrivateEngine, name: str) -> int:
    return engine.cli("jaula", "logs", name).stdout.count("tick")


def test_a_container_and_its_log_continue_without_the_engine(crashing: PrivateEngine) -> None:
    words = ("run", "-d", "--name", "tt", "busybox", "sh", "-c", TICK)
    assert crashing.cli("jaula", *words).returncode == 0
    eventually(lambda: ticks(crashing, "tt") > 1, "the container logs")
    before, process = ticks(crashing, "tt"), containers.pid(crashing, "tt")
    crashing.kill()
    time.sleep(1.5)
    assert Path(f"/proc/{process}").exists(), "the container died with the engine"
    crashing.start()
    state = inspect(crashing, "tt")["State"]
    assert (state["Running"], state["Pid"]) == (True, process)
    assert ticks(crashing, "tt") >= before + 5, "the log has a gap"
    assert crashing.cli("jaula", "exec", "tt", "echo", "in").stdout == "in\n"
    assert crashing.cli("jaula", "stop", "-t", "0", "tt").returncode == 0
    assert inspect(crashing, "tt")["State"]["Running"] is False


def test_shared_memory_can_be_joined_after_two_engines_were_killed(
    crashing: PrivateEngine,
) -> None:
    words = ("run", "-d", "--name", "tt", "--ipc", "shareable", "busybox", "sleep", "1000")
    assert crashing.cli("jaula", *words).returncode == 0
    for number in range(2):
        crashing.kill()
        crashing.start()
        write = ("sh", "-c", f"echo {number} >> /dev/shm/file; cat /dev/shm/file")
        done = crashing.cli("jaula", "run", "--rm", "--ipc", "container:tt", "busybox", *write)
        assert done.stdout.split() == [str(n) for n in range(number + 1)], done.stderr
    assert crashing.cli("jaula", "rm", "-f", "tt").returncode == 0
    containers.assert_clean(crashing)


def test_the_next_engine_reads_the_exit_status(crashing: PrivateEngine) -> None:
    crashing.cli("jaula", "run", "-d", "--name", "tt", "busybox", "sh", "-c", "sleep 1; exit 42")
    process = containers.pid(crashing, "tt")
    crashing.kill()
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the container ends")
    assert leaks.mounts(crashing) == []
    crashing.start()
    eventually(lambda: inspect(crashing, "tt")["State"]["Status"] == "exited", "the exit is found")
    assert inspect(crashing, "tt")["State"]["ExitCode"] == 42
    assert crashing.cli("jaula", "wait", "tt").stdout.strip() == "42"


def test_the_next_engine_removes_a_container_with_rm(
    crashing: PrivateEngine,
) -> None:
    crashing.cli("jaula", "run", "-d", "--rm", "--name", "tt", "busybox", "sleep", "1")
    process = containers.pid(crashing, "tt")
    crashing.kill()
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the container ends")
    crashing.start()
    eventually(
        lambda: crashing.request("GET", "/containers/tt/json").status == 404,
        "the container is gone",
    )
    containers.assert_clean(crashing)


@pytest.mark.slow
def test_the_next_engine_continues_the_restart_delay(crashing: PrivateEngine) -> None:
    """Kill the engine during a restart delay.

    The restart count is kept and the delay is not cut.
    """
    words = ("run", "-d", "--name", "tt", "--restart", "on-failure:6", "busybox", "false")
    assert crashing.cli("docker", *words).returncode == 0
    eventually(lambda: inspect(crashing, "tt")["RestartCount"] == 5, "the fifth pause, of 1.6 s")
    ended = inspect(crashing, "tt")["State"]["FinishedAt"]
    crashing.kill()
    crashing.start()
    eventually(lambda: inspect(crashing, "tt")["RestartCount"] == 6, "the sixth pause, of 3.2 s")
    again = inspect(crashing, "tt")["State"]["FinishedAt"]
    assert moment(again) - moment(ended) >= 1.5
    crashing.kill()
    time.sleep(1)
    crashing.start()
    result = inspect(crashing, "tt")
    assert (result["State"]["Status"], result["RestartCount"]) == ("restarting", 6)
    assert result["State"]["FinishedAt"] == again
    assert crashing.cli("docker", "wait", "tt").stdout == "1\n"
    result = inspect(crashing, "tt")
    assert (result["State"]["Status"], result["RestartCount"]) == ("exited", 6)
    assert moment(result["State"]["FinishedAt"]) - moment(again) >= 3.1


def test_a_container_stopped_during_the_restart_delay_stays_stopped(
    crashing: PrivateEngine,
) -> None:
    words = ("run", "-d", "--name", "tt", "--restart", "always", "busybox", "false")
    assert crashing.cli("docker", *words).returncode == 0
    eventually(lambda: inspect(crashing, "tt")["RestartCount"] >= 3, "three restarts")
    crashing.kill()
    crashing.start()
    assert crashing.cli("docker", "stop", "tt").returncode == 0
    count = inspect(crashing, "tt")["RestartCount"]
    time.sleep(2)
    result = inspect(crashing, "tt")
    assert (result["State"]["Status"], result["RestartCount"]) == ("exited", count)


def test_a_published_port_answers_after_the_engine_was_killed(crashing: PrivateEngine) -> None:
    serve = "while :; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 80; done"
    words = ("run", "-d", "--name", "tt", "-p", "127.0.0.1::80", "busybox", "sh", "-c", serve)
    assert crashing.cli("jaula", *words).returncode == 0
    port = int(crashing.cli("jaula", "port", "tt", "80").stdout.strip().rpartition(":")[2])
    eventually(lambda: _hello(port), "the port answers")
    crashing.kill()
    eventually(lambda: _hello(port), "the port answers without the engine")
    crashing.start()
    eventually(lambda: _hello(port), "the port answers with the next engine")
    crashing.cli("jaula", "rm", "-f", "tt")
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


def test_an_attached_terminal_stays_connected(crashing: PrivateEngine) -> None:
    words = [str(PROJECT / "jaula"), "run", "-it", "--name", "tt", "busybox", "sh"]
    with Terminal(words, crashing.environment()) as terminal:
        terminal.expect("# ")
        crashing.kill()
        terminal.send("echo al''ive\r")
        terminal.expect("alive")
    crashing.start()


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.1, 0.2])
def test_an_engine_killed_during_a_start_leaks_nothing(
    crashing: PrivateEngine, delay: float
) -> None:
    import subprocess

    client = subprocess.Popen(
        [str(PROJECT / "jaula"), "run", "--name", "tt", "busybox", "sleep", "600"],
        env=crashing.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(delay)
    crashing.kill()
    client.terminate()
    client.wait(20)
    crashing.start()
    status = crashing.request("GET", "/containers/tt/json")
    if status.status == 200:
        state = status.json()["State"]
        assert state["Status"] in ("created", "running", "exited")
        if state["Running"]:
            assert Path(f"/proc/{state['Pid']}").exists()
    crashing.cli("jaula", "rm", "-f", "tt")
    containers.assert_clean(crashing)
    assert crashing.cli("jaula", "run", "--rm", "busybox", "echo", "well").stdout == "well\n"


def test_a_killed_shim_ends_its_container_and_leaks_nothing(
    crashing: PrivateEngine,
) -> None:
    import os
    import signal

    crashing.cli("jaula", "run", "-d", "--name", "tt", "busybox", "sleep", "600")
    process = containers.pid(crashing, "tt")
    os.kill(containers.shim(process), signal.SIGKILL)
    eventually(lambda: not inspect(crashing, "tt")["State"]["Running"], "the engine sees the end")
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the container is gone")
    crashing.cli("jaula", "rm", "-f", "tt")
    containers.assert_clean(crashing)
