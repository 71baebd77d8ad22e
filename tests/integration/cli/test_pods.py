"""The commands of pods on a real engine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from harness.engine import PROJECT, PrivateEngine

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SERVER = "trap 'exit 0' TERM; echo out; echo err >&2; sleep 1000 & wait"


@pytest.fixture
def pod(jaula: Run, busybox: str) -> Iterator[str]:
    """Yield the name of a running pod with two containers, ``first`` and ``second``."""
    new = jaula("run", "-d", "--pod", "new:duo", "--name", "first", busybox, "sh", "-c", SERVER)
    assert new.returncode == 0, new.stderr
    second = jaula("run", "-d", "--pod", "duo", "--name", "second", busybox, "sh", "-c", SERVER)
    assert second.returncode == 0, second.stderr
    yield "duo"
    assert jaula("pod", "rm", "-f", "-i", "duo").returncode == 0
    assert jaula("ps", "-aq").stdout == ""


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition does not become true"
        time.sleep(0.05)


def status(jaula: Run, pod: str) -> str:
    return jaula("pod", "ls", "-f", f"name={pod}", "--format", "{{.Status}}").stdout.strip()


def pids(jaula: Run) -> list[str]:
    inspected = jaula("inspect", "-f", "{{.State.Pid}}", "duo-infra", "first", "second")
    return inspected.stdout.split()


def test_a_pod_is_stopped_killed_restarted_and_pruned(jaula: Run, pod: str) -> None:
    before = pids(jaula)
    assert jaula("pod", "restart", "-t", "5", pod).returncode == 0
    after = pids(jaula)
    assert "0" not in after and not set(before) & set(after)
    assert status(jaula, pod) == "Running"
    assert jaula("stop", "second").returncode == 0
    assert status(jaula, pod) == "Degraded"
    assert jaula("pod", "kill", "-s", "TERM", pod).returncode == 0  # of those that run
    until(lambda: status(jaula, pod) == "Exited")
    refused = jaula("pod", "kill", pod)
    assert refused.returncode == 1
    assert "no container of the pod duo is running" in refused.stderr
    assert jaula("pod", "exists", pod).returncode == 0
    assert jaula("pod", "prune", input="n\n").returncode == 1
    assert jaula("pod", "exists", pod).returncode == 0
    assert jaula("pod", "prune", "-f").returncode == 0
    assert jaula("pod", "exists", pod).returncode == 1


def test_a_paused_pod_runs_no_process(jaula: Run, pod: str) -> None:
    assert jaula("pod", "pause", pod).returncode == 0
    states = jaula("inspect", "-f", "{{.State.Status}}", "duo-infra", "first", "second").stdout
    assert states.split() == ["paused"] * 3
    assert status(jaula, pod) == "Paused"
    assert jaula("pod", "unpause", pod).returncode == 0
    assert status(jaula, pod) == "Running"
    assert jaula("pod", "unpause", pod).returncode == 1
    assert jaula("pod", "create", "other").returncode == 0  # it is neither running nor paused
    for command in ("pause", "unpause"):
        done = jaula("pod", command, "--all")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.split()) == 1
    assert jaula("pod", "rm", "other").returncode == 0


def test_logs_processes_and_usage_are_those_of_all_containers(jaula: Run, pod: str) -> None:
    def logged() -> list[str]:
        done = jaula("pod", "logs", "--names", pod)
        return sorted((done.stdout + done.stderr).splitlines())

    until(lambda: len(logged()) == 4)
    assert logged() == ["first err", "first out", "second err", "second out"]
    assert jaula("pod", "logs", "-c", "second", "--names", pod).stdout == "second out\n"
    assert jaula("pod", "logs", "-c", "none", pod).returncode == 125
    top = jaula("pod", "top", pod, "-o", "pid,args").stdout.splitlines()
    assert top[0].split() == ["CONTAINER", "PID", "COMMAND"]
    assert {line.split()[1] for line in top[1:]} >= set(pids(jaula))
    columns = ("--no-stream", "--format", "{{.Pod}} {{.Name}} {{.PIDs}}")
    usage = jaula("pod", "stats", *columns, pod).stdout.splitlines()
    assert usage == ["duo duo-infra 1", "duo first 2", "duo second 2"]


def test_followed_logs_end_with_the_containers(engine: PrivateEngine, jaula: Run, pod: str) -> None:
    words = [str(PROJECT / "jaula"), "--host", engine.host, "pod", "logs", "-f", "--names", pod]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert {process.stdout.readline() for _ in range(2)} == {"first out\n", "second out\n"}
    assert jaula("pod", "stop", pod).returncode == 0
    assert process.wait(30) == 0
    process.stdout.close()


def test_pods_are_listed_and_inspected(jaula: Run, pod: str) -> None:
    (document,) = json.loads(jaula("pod", "ps", "--format", "json").stdout)
    names = [container["Names"] for container in document["Containers"]]
    assert names == ["duo-infra", "first", "second"]
    assert jaula("pod", "ps", "-q", "-f", "status=exited").stdout == ""
    assert jaula("pod", "ps", "-f", "state=x").returncode == 125
    shown = jaula("pod", "inspect", pod, "-f", "{{.State}} {{.SharedNamespaces}}").stdout
    assert shown == "Running [ipc net user uts]\n"
    absent = jaula("pod", "inspect", pod, "none")
    assert absent.returncode == 125
    assert json.loads(absent.stdout)[0]["Name"] == pod
    assert jaula("ps", "--pods", "--format", "{{.Pod}}").stdout.split() == ["duo"] * 3


def test_a_pod_shares_its_process_ids_and_its_restart_policy(jaula: Run, busybox: str) -> None:
    flags = ("--share", "+pid", "--restart", "on-failure:1", "--infra-name", "holder")
    assert jaula("pod", "create", *flags, "one").returncode == 0
    try:
        assert jaula("run", "-d", "--pod", "one", "--name", "long", busybox, "sleep", "77")
        processes = jaula("run", "--rm", "--pod", "one", busybox, "ps", "-o", "args").stdout
        assert "/pause" in processes and "sleep 77" in processes
        policy = jaula("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "long").stdout
        assert policy == "on-failure\n"
        assert jaula("inspect", "holder").returncode == 0
    finally:
        jaula("pod", "rm", "-f", "one")
