"""The lifecycle of a docker container through the runtime, and of the daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from harness.callers.caller import IMAGE, has_terminal, until
from harness.callers.cgroup_limits import limits
from harness.callers.dockerd import Dockerd

pytestmark = [pytest.mark.needs("dockerd"), pytest.mark.xdist_group("dockerd")]

WAITS = 'trap "echo term; exit 3" TERM; trap "echo hup" HUP; while :; do sleep 0.1; done'


@pytest.fixture
def container(dockerd: Dockerd) -> Iterator[str]:
    """Yield a container that handles signals and exits on SIGTERM."""
    dockerd("run", "-d", "--name", "life", IMAGE, "sh", "-c", WAITS)
    yield "life"
    dockerd("rm", "-f", "life")


def state(dockerd: Dockerd, name: str, key: str = "Status") -> str:
    return dockerd.out("inspect", "-f", f"{{{{.State.{key}}}}}", name)


def test_exec_returns_streams_user_and_exit_status(dockerd: Dockerd, container: str) -> None:
    flags = ("-u", "www-data", "-w", "/tmp", "-e", "A=b")
    script = "id -un; pwd; echo $A; echo err >&2; exit 4"
    done = dockerd("exec", *flags, container, "sh", "-c", script, expect=4)
    assert (done.stdout, done.stderr) == ("www-data\n/tmp\nb\n", "err\n")
    assert dockerd("exec", "-i", container, "wc", "-c", input="x" * 999).stdout.strip() == "999"


def test_exec_has_a_terminal(dockerd: Dockerd, container: str) -> None:
    with dockerd.terminal("exec", "-it", container, "sh") as terminal:
        has_terminal(terminal)
        terminal.send("exit 9\n")
        assert terminal.wait() == 9


@pytest.mark.parametrize(
    ("program", "status"), [("/nonexistent", {126, 127}), ("/etc/passwd", {126})]
)
def test_exec_of_an_invalid_program_fails(
    dockerd: Dockerd, container: str, program: str, status: set[int]
) -> None:
    done = dockerd("exec", container, program, expect=None)
    assert done.returncode in status
    assert program in done.stdout + done.stderr


def test_exec_may_be_detached_and_privileged(dockerd: Dockerd, container: str) -> None:
    dockerd("exec", "-d", container, "sh", "-c", "echo done >/detached")
    until(
        lambda: dockerd("exec", container, "cat", "/detached", expect=None).stdout == "done\n",
        "the detached program writes its file",
    )
    script = "grep -E '^Cap(Eff|Bnd):' /proc/self/status | sort -u -k2 | wc -l"
    assert dockerd.out("exec", "--privileged", container, "sh", "-c", script) == "1"


def test_stop_sends_sigterm_first(dockerd: Dockerd, container: str) -> None:
    dockerd("stop", "-t", "10", container)
    assert state(dockerd, container, "ExitCode") == "3"
    assert dockerd.out("logs", container) == "term"


def test_stop_kills_a_program_that_ignores_sigterm(dockerd: Dockerd) -> None:
    dockerd("run", "-d", "--name", "deaf", IMAGE, "sleep", "1000")
    dockerd("stop", "-t", "1", "deaf")
    assert state(dockerd, "deaf", "ExitCode") == "137"
    dockerd("rm", "deaf")


def test_kill_sends_the_named_signal(dockerd: Dockerd, container: str) -> None:
    dockerd("kill", "-s", "HUP", container)
    until(lambda: "hup" in dockerd.out("logs", container), "the program hears SIGHUP")
    assert state(dockerd, container) == "running"


def test_pause_freezes_and_unpause_thaws(dockerd: Dockerd, container: str) -> None:
    dockerd("pause", container)
    assert state(dockerd, container) == "paused"
    dockerd("exec", container, "true", expect=1)
    dockerd("unpause", container)
    dockerd("exec", container, "true")


def test_update_changes_the_limits_in_the_kernel(dockerd: Dockerd, container: str) -> None:
    flags = ("--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "--pids-limit", "77")
    dockerd("update", *flags, container)
    pid = state(dockerd, container, "Pid")
    assert limits(pid) == {"memory": 64 << 20, "cpu": 0.5, "pids": 77}


def test_limits_are_set_at_start(dockerd: Dockerd) -> None:
    flags = ("--memory", "48m", "--cpus", "0.25", "--pids-limit", "55")
    dockerd("run", "-d", "--name", "limited", *flags, IMAGE, "sleep", "1000")
    pid = state(dockerd, "limited", "Pid")
    assert limits(pid) == {"memory": 48 << 20, "cpu": 0.25, "pids": 55}
    dockerd("rm", "-f", "limited")


def test_an_oom_kill_is_reported_by_the_daemon(dockerd: Dockerd) -> None:
    hog = "a=x; while :; do a=$a$a; done"
    flags = ("--name", "hog", "--memory", "16m", "--memory-swap", "16m")
    dockerd("run", *flags, IMAGE, "sh", "-c", hog, expect=137)
    until(lambda: state(dockerd, "hog", "OOMKilled") == "true", "the daemon hears of it")
    dockerd("rm", "hog")


def test_stats_and_top_show_the_container(dockerd: Dockerd, container: str) -> None:
    form = "{{.PIDs}} {{.MemUsage}}"
    pids, used = dockerd.out("stats", "--no-stream", "--format", form, container).split()[:2]
    assert int(pids) >= 1
    assert used != "0B"
    assert WAITS[:20] in dockerd.out("top", container)


def test_a_container_is_restarted_and_started_again(dockerd: Dockerd, container: str) -> None:
    first = state(dockerd, container, "Pid")
    dockerd("restart", "-t", "0", container)
    assert state(dockerd, container, "Pid") != first
    dockerd("stop", "-t", "10", container)
    dockerd("start", container)
    assert state(dockerd, container) == "running"


def test_a_created_container_is_started_later(dockerd: Dockerd) -> None:
    dockerd("create", "--name", "later", IMAGE, "echo", "begun")
    assert dockerd("start", "-a", "later").stdout == "begun\n"
    assert dockerd.out("wait", "later") == "0"
    dockerd("rm", "later")


def test_the_restart_policy_restarts_a_killed_container(dockerd: Dockerd) -> None:
    dockerd("run", "-d", "--name", "stubborn", "--restart", "always", IMAGE, "sleep", "1000")
    first = state(dockerd, "stubborn", "Pid")
    os.kill(int(first), signal.SIGKILL)
    until(
        lambda: (
            state(dockerd, "stubborn") == "running" and state(dockerd, "stubborn", "Pid") != first
        ),
        "it runs again",
    )
    dockerd("rm", "-f", "stubborn")


@pytest.mark.parametrize(("command", "health"), [("true", "healthy"), ("false", "unhealthy")])
def test_the_health_check_runs(dockerd: Dockerd, command: str, health: str) -> None:
    flags = ("--health-cmd", command, "--health-interval", "200ms", "--health-retries", "1")
    dockerd("run", "-d", "--name", "checked", *flags, IMAGE, "sleep", "1000")
    until(lambda: state(dockerd, "checked", "Health.Status") == health, f"it is {health}")
    dockerd("rm", "-f", "checked")


@pytest.mark.slow
def test_containers_outlive_the_daemon(dockerd: Dockerd, container: str) -> None:
    """The next daemon finds them through the shim, and the runtime still lists them."""
    pid = state(dockerd, container, "Pid")
    dockerd.crash()
    dockerd.launch()
    assert (state(dockerd, container), state(dockerd, container, "Pid")) == ("running", pid)
    assert dockerd.out("exec", container, "echo", "back") == "back"
    dockerd("stop", "-t", "10", container)
    assert state(dockerd, container, "ExitCode") == "3"
