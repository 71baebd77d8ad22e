"""containerd's shim calls the runtime: `ctr run`, `ctr task` and the output that the shim reads."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.callers.caller import IMAGE, follows_size, has_terminal, until
from harness.callers.cgroup_limits import limits
from harness.callers.containerd import Containerd

pytestmark = [pytest.mark.needs("containerd"), pytest.mark.xdist_group("containerd")]

numbers = itertools.count()
WAITS = 'trap "exit 3" TERM; trap "echo >/hup" HUP; while :; do sleep 0.1; done'


@pytest.fixture
def task(containerd: Containerd) -> Iterator[str]:
    """Yield a container that handles signals, under a name of its own."""
    name = f"task{next(numbers)}"
    containerd("run", "-d", IMAGE, name, "sh", "-c", WAITS)
    yield name
    containerd("task", "rm", "-f", name, expect=None)
    containerd("container", "rm", name)


def status(containerd: Containerd, name: str) -> str:
    lines = (line.split() for line in containerd.out("task", "ls").splitlines()[1:])
    return next((words[2] for words in lines if words[0] == name), "")


def pid(containerd: Containerd, name: str) -> int:
    lines = (line.split() for line in containerd.out("task", "ls").splitlines()[1:])
    return int(next(words[1] for words in lines if words[0] == name))


@pytest.mark.parametrize("ending", [0, 5])
def test_run_returns_streams_and_exit_status(containerd: Containerd, ending: int) -> None:
    script = f"echo out; echo err >&2; exit {ending}"
    done = containerd("run", "--rm", IMAGE, "streams", "sh", "-c", script, expect=ending)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_standard_input_reaches_the_program(containerd: Containerd) -> None:
    """The test does not wait for end of file: ctr loses it if it comes before the start."""
    script = "head -c 70000 | wc -c"
    done = containerd("run", "--rm", IMAGE, "fed", "sh", "-c", script, input="x" * 70000)
    assert done.stdout.strip() == "70000"


def test_run_sets_user_directory_and_environment(containerd: Containerd) -> None:
    flags = ("--user", "33", "--cwd", "/tmp", "--env", "A=b")
    output = containerd.out("run", "--rm", *flags, IMAGE, "set", "sh", "-c", "id -u; pwd; echo $A")
    assert output.splitlines() == ["33", "/tmp", "b"]


def test_limits_are_set(containerd: Containerd) -> None:
    containerd(
        *("run", "-d", "--memory-limit", str(48 << 20), "--cpus", "0.5"),
        *(IMAGE, "limited", "sleep", "1000"),
    )
    result = limits(pid(containerd, "limited"))
    assert (result["memory"], result["cpu"]) == (48 << 20, 0.5)
    containerd("task", "rm", "-f", "limited", expect=None)
    containerd("container", "rm", "limited")


def test_seccomp_capabilities_and_a_read_only_root_are_set(containerd: Containerd) -> None:
    flags = ("--seccomp", "--read-only", "--cap-drop", "CAP_CHOWN", "--hostname", "inner")
    script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; touch /x || hostname"
    output = containerd.out("run", "--rm", *flags, IMAGE, "confined", "sh", "-c", script)
    assert output.splitlines() == ["NoNewPrivs:\t1", "Seccomp:\t2", "inner"]


def test_mounts_are_made(containerd: Containerd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs\n")
    mount = ("--mount", f"type=bind,src={tmp_path},dst=/mnt/deep,options=rbind:ro")
    script = "cat /mnt/deep/file; touch /mnt/deep/x || echo ro"
    output = containerd.out("run", "--rm", *mount, IMAGE, "mounted", "sh", "-c", script)
    assert output.splitlines() == ["theirs", "ro"]


def test_a_user_namespace_maps_ids(containerd: Containerd) -> None:
    maps = ("--uidmap", "0:400000:3000", "--gidmap", "0:400000:3000")
    script = "id -u; tr -s ' ' </proc/self/uid_map; stat -c %u /bin/sh"
    output = containerd.out("run", "--rm", *maps, IMAGE, "mapped", "sh", "-c", script)
    assert output.splitlines() == ["0", " 0 400000 3000", "0"]


def test_a_privileged_container_has_every_capability(containerd: Containerd) -> None:
    script = "grep Seccomp: /proc/self/status; test -c /dev/kmsg && echo device"
    output = containerd.out("run", "--rm", "--privileged", IMAGE, "free", "sh", "-c", script)
    assert output.splitlines() == ["Seccomp:\t0", "device"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("/nonexistent", "no such file or directory"),
        ("nonexistent", "executable file not found in $PATH"),
        ("/etc/passwd", "permission denied"),
    ],
)
def test_the_shim_reads_errors_from_the_log_of_the_runtime(
    containerd: Containerd, program: str, reason: str
) -> None:
    done = containerd("run", "--rm", IMAGE, "wrong", program, expect=1)
    assert "OCI runtime create failed" in done.stderr
    assert program in done.stderr and reason in done.stderr
    assert containerd.out("container", "ls", "-q") == ""


def test_a_missing_bind_source_is_named(containerd: Containerd) -> None:
    mount = ("--mount", "type=bind,src=/not/there,dst=/mnt,options=rbind")
    done = containerd("run", "--rm", *mount, IMAGE, "wrong", "true", expect=1)
    assert "/not/there" in done.stderr and "no such file or directory" in done.stderr.lower()


def test_run_has_a_terminal(containerd: Containerd) -> None:
    with containerd.terminal("run", "--rm", "-t", IMAGE, "tty", "sh") as terminal:
        has_terminal(terminal)
        follows_size(terminal)
        terminal.send("exit 7\n")
        assert terminal.wait() == 7


def test_exec_returns_streams_and_exit_status(containerd: Containerd, task: str) -> None:
    words = ("task", "exec", "--exec-id", "e", task, "sh", "-c", "echo out; echo err >&2; exit 4")
    done = containerd(*words, expect=4)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_exec_sets_directory_and_user(containerd: Containerd, task: str) -> None:
    flags = ("--exec-id", "e", "--user", "33", "--cwd", "/tmp")
    assert containerd.out("task", "exec", *flags, task, "sh", "-c", "id -u; pwd") == "33\n/tmp"


def test_exec_of_a_missing_program_fails(containerd: Containerd, task: str) -> None:
    done = containerd("task", "exec", "--exec-id", "e", task, "/nonexistent", expect=1)
    assert "OCI runtime exec failed" in done.stderr
    assert "no such file or directory" in done.stderr


def test_exec_has_a_terminal(containerd: Containerd, task: str) -> None:
    with containerd.terminal("task", "exec", "-t", "--exec-id", "t", task, "sh") as terminal:
        has_terminal(terminal)
        terminal.send("exit 9\n")
        assert terminal.wait() == 9


def test_ps_lists_the_processes_of_the_cgroup(containerd: Containerd, task: str) -> None:
    first = pid(containerd, task)
    assert first in containerd.processes(task)
    assert Path(f"/proc/{first}/root/hup").parent.exists()


def test_pause_freezes_and_resume_thaws(containerd: Containerd, task: str) -> None:
    containerd("task", "pause", task)
    assert status(containerd, task) == "PAUSED"
    containerd("task", "exec", "--exec-id", "e", task, "true", expect=1)
    containerd("task", "resume", task)
    assert status(containerd, task) == "RUNNING"
    containerd("task", "exec", "--exec-id", "e", task, "true")


def test_metrics_are_those_of_the_cgroup(containerd: Containerd, task: str) -> None:
    output = containerd.metrics(task)
    assert isinstance(output["memory"], dict) and output["memory"]
    assert isinstance(output["pids"], dict) and output["pids"]["current"] >= 1


def test_kill_sends_a_signal_by_name(containerd: Containerd, task: str) -> None:
    containerd("task", "kill", "-s", "SIGHUP", task)
    until(
        lambda: (
            containerd(
                *("task", "exec", "--exec-id", "e", task, "test", "-e", "/hup"), expect=None
            ).returncode
            == 0
        ),
        "the program hears SIGHUP",
    )
    containerd("task", "kill", "-s", "SIGTERM", task)
    until(lambda: status(containerd, task) == "STOPPED", "the program ends")
    done = containerd("task", "rm", task)
    assert "exit code 3" in done.stderr


def test_kill_all_signals_every_process(containerd: Containerd, task: str) -> None:
    containerd("task", "exec", "-d", "--exec-id", "other", task, "sleep", "1000")
    assert len(containerd.processes(task)) >= 2
    containerd("task", "kill", "-a", "-s", "SIGKILL", task)
    until(lambda: status(containerd, task) == "STOPPED", "every process ends")


def test_the_shim_detects_a_killed_init(containerd: Containerd, task: str) -> None:
    os.kill(pid(containerd, task), signal.SIGKILL)
    until(lambda: status(containerd, task) == "STOPPED", "the shim hears of the end")
    assert "exit code 137" in containerd("task", "rm", task).stderr


def test_kill_of_an_exited_container_reports_no_process(containerd: Containerd, task: str) -> None:
    containerd("task", "kill", "-s", "SIGKILL", task)
    until(lambda: status(containerd, task) == "STOPPED", "the program ends")
    done = containerd("task", "kill", "-s", "SIGTERM", task, expect=1)
    assert "not found" in done.stderr


def test_a_container_starts_a_second_time(containerd: Containerd, task: str) -> None:
    first = pid(containerd, task)
    containerd("task", "rm", "-f", task, expect=None)
    containerd("task", "start", "-d", task)
    assert pid(containerd, task) != first
    assert status(containerd, task) == "RUNNING"


def test_a_pid_namespace_is_shared(containerd: Containerd, task: str) -> None:
    joined = ("--with-ns", f"pid:/proc/{pid(containerd, task)}/ns/pid")
    output = containerd.out("run", "--rm", *joined, IMAGE, "guest", "cat", "/proc/1/comm")
    assert output == "sh"


def test_init_exit_in_a_shared_pid_namespace_kills_the_rest(
    containerd: Containerd, task: str
) -> None:
    """The exit of init in a shared PID namespace kills no process.

    The shim has the runtime kill all of them.
    """
    joined = ("--with-ns", f"pid:/proc/{pid(containerd, task)}/ns/pid")
    containerd("run", "-d", *joined, IMAGE, "guest", "sh", "-c", "sleep 1000 & sleep 1000")
    containerd("task", "kill", "-s", "SIGKILL", "guest")
    until(lambda: status(containerd, "guest") == "STOPPED", "the program ends")
    containerd("task", "rm", "guest")
    containerd("container", "rm", "guest")
    assert status(containerd, task) == "RUNNING"
