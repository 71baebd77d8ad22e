"""The lifecycle of a podman container: pause, limits, signals, stop, restart, health checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.callers.caller import IMAGE, until
from harness.callers.cgroup_limits import limits
from harness.callers.podman import Podman
from harness.cgroup_hierarchies import limiting

pytestmark = [pytest.mark.needs("podman"), pytest.mark.xdist_group("podman")]

WAITS = 'trap "echo term; exit 3" TERM; trap "echo hup" HUP; while :; do sleep 0.1; done'


@pytest.fixture
def container(podman: Podman) -> Iterator[str]:
    """Yield a container that handles signals and exits on SIGTERM."""
    podman("run", "-d", "--name", "life", IMAGE, "sh", "-c", WAITS)
    yield "life"
    podman("rm", "-f", "-t", "0", "life")


def status(podman: Podman, name: str) -> str:
    return podman.out("inspect", "-f", "{{.State.Status}}", name)


def test_top_lists_the_processes(podman: Podman, container: str) -> None:
    output = podman.out("top", container, "pid", "comm").splitlines()
    assert output[0].split() == ["PID", "COMMAND"]
    assert output[1].split() == ["1", "sh"]


def test_pause_freezes_and_unpause_thaws(podman: Podman, container: str) -> None:
    podman("pause", container)
    assert status(podman, container) == "paused"
    podman("exec", container, "true", expect=255)
    podman("unpause", container)
    assert status(podman, container) == "running"
    podman("exec", container, "true")


def test_a_paused_container_can_be_removed(podman: Podman) -> None:
    podman("run", "-d", "--name", "frozen", IMAGE, "sleep", "1000")
    podman("pause", "frozen")
    podman("rm", "-f", "-t", "0", "frozen")
    podman("container", "exists", "frozen", expect=1)


def test_update_changes_the_limits_in_the_kernel(podman: Podman, container: str) -> None:
    podman("update", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "77", container)
    pid = podman.out("inspect", "-f", "{{.State.Pid}}", container)
    assert limits(pid) == {"memory": 64 << 20, "cpu": 0.5, "pids": 77}


def test_limits_are_set_at_start(podman: Podman) -> None:
    flags = ("--memory", "48m", "--cpus", "0.25", "--pids-limit", "55")
    podman("run", "-d", "--name", "limited", *flags, IMAGE, "sleep", "1000")
    pid = podman.out("inspect", "-f", "{{.State.Pid}}", "limited")
    assert limits(pid) == {"memory": 48 << 20, "cpu": 0.25, "pids": 55}
    podman("rm", "-f", "-t", "0", "limited")


def test_the_container_has_a_cgroup_in_every_limiting_hierarchy(
    podman: Podman, container: str
) -> None:
    pid = podman.out("inspect", "-f", "{{.State.Pid}}", container)
    lines = limiting(Path(f"/proc/{pid}/cgroup").read_text())
    name = podman.out("inspect", "-f", "{{.Id}}", container)
    assert lines
    assert [line for line in lines if not line.endswith(f"/libpod-{name}")] == []


def test_a_program_above_its_memory_limit_is_killed(podman: Podman) -> None:
    hog = "a=x; while :; do a=$a$a; done"
    flags = ("--name", "hog", "--memory", "16m", "--memory-swap", "16m")
    podman("run", *flags, IMAGE, "sh", "-c", hog, expect=137)
    podman("rm", "hog")


def test_stats_shows_memory_and_processes(podman: Podman, container: str) -> None:
    form = ("--no-stream", "--no-reset", "--format", "json")
    output = json.loads(podman.out("stats", *form, container))[0]
    assert int(output["pids"]) >= 1
    assert output["mem_usage"].split(" / ")[0] not in ("", "0B", "--")


def test_kill_sends_the_named_signal(podman: Podman, container: str) -> None:
    podman("kill", "-s", "HUP", container)
    until(lambda: "hup" in podman.out("logs", container), "the program hears SIGHUP")
    assert status(podman, container) == "running"


def test_stop_sends_sigterm_first(podman: Podman, container: str) -> None:
    podman("stop", "-t", "10", container)
    assert podman.out("inspect", "-f", "{{.State.ExitCode}}", container) == "3"
    assert podman.out("logs", container) == "term"


def test_stop_kills_a_program_that_ignores_sigterm(podman: Podman) -> None:
    podman("run", "-d", "--name", "deaf", IMAGE, "sleep", "1000")
    podman("stop", "-t", "1", "deaf")
    assert podman.out("inspect", "-f", "{{.State.ExitCode}}", "deaf") == "137"
    podman("rm", "deaf")


def test_a_container_is_started_again_and_restarted(podman: Podman, container: str) -> None:
    podman("stop", "-t", "10", container)
    podman("start", container)
    assert status(podman, container) == "running"
    first = podman.out("inspect", "-f", "{{.State.Pid}}", container)
    podman("restart", "-t", "0", container)
    assert status(podman, container) == "running"
    assert podman.out("inspect", "-f", "{{.State.Pid}}", container) != first


def test_an_initialised_container_is_started_later(podman: Podman) -> None:
    podman("create", "--name", "staged", IMAGE, "echo", "begun")
    podman("init", "staged")
    assert status(podman, "staged") == "initialized"
    done = podman("start", "-a", "staged")
    assert done.stdout == "begun\n"
    podman("rm", "staged")


def test_an_initialised_container_is_removed_without_start(podman: Podman) -> None:
    podman("create", "--name", "unborn", IMAGE, "echo", "never")
    podman("init", "unborn")
    podman("rm", "-f", "-t", "0", "unborn")
    podman("container", "exists", "unborn", expect=1)


def test_wait_and_logs_work_after_the_exit(podman: Podman) -> None:
    podman("run", "-d", "--name", "brief", IMAGE, "sh", "-c", "echo said; exit 6")
    assert podman.out("wait", "brief") == "6"
    assert podman.out("logs", "brief") == "said"
    podman("rm", "brief")


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("false", 1)])
def test_the_health_check_runs(podman: Podman, command: str, status: int) -> None:
    health = ("--health-cmd", command, "--health-interval", "disable")
    podman("run", "-d", "--name", "checked", *health, IMAGE, "sleep", "1000")
    podman("healthcheck", "run", "checked", expect=status)
    podman("rm", "-f", "-t", "0", "checked")


def test_pods_share_namespaces_and_end_together(podman: Podman) -> None:
    podman("pod", "create", "--name", "pod", "--network", "none", "--share", "pid,ipc,net,uts")
    podman("run", "-d", "--pod", "pod", "--name", "one", IMAGE, "sleep", "1000")
    podman("run", "-d", "--pod", "pod", "--name", "two", IMAGE, "sleep", "1000")
    script = "for k in pid ipc net uts mnt; do readlink /proc/self/ns/$k; done"
    one, two = (podman.out("exec", n, "sh", "-c", script).split() for n in ("one", "two"))
    assert one[:4] == two[:4]
    assert one[4] != two[4]
    output = podman.out("exec", "one", "ps", "-o", "comm").split()
    assert output.count("sleep") == 2
    podman("pod", "stop", "-t", "0", "pod")
    assert status(podman, "one") == "exited"
    podman("pod", "start", "pod")
    assert podman.out("exec", "two", "echo", "again") == "again"
    podman("pod", "rm", "-f", "-t", "0", "pod")


def test_a_container_joins_the_namespaces_of_another(podman: Podman, container: str) -> None:
    joined = ("--pid", f"container:{container}", "--network", f"container:{container}")
    output = podman.out("run", "--rm", *joined, IMAGE, "sh", "-c", "cat /proc/1/comm; echo $$")
    first, own = output.splitlines()
    assert first == "sh"
    assert own != "1"
