"""`podman run` through the runtime: start, streams, exit status and errors."""

from __future__ import annotations

import re
import time

import pytest

from harness.callers.caller import IMAGE, follows_size, has_terminal
from harness.callers.podman import Podman

pytestmark = [pytest.mark.needs("podman"), pytest.mark.xdist_group("podman")]


def test_info_shows_the_runtime_and_its_version(podman: Podman) -> None:
    form = "{{.Host.OCIRuntime.Name}}|{{.Host.OCIRuntime.Path}}|{{.Host.OCIRuntime.Version}}"
    name, path, version = podman.out("info", "--format", form).split("|")
    assert (name, path) == (podman.runtime.name, str(podman.runtime))
    assert re.match(rf"{re.escape(name)} version \S+\ncommit: \S+\nspec: 1\.\d+\.\d+", version)


@pytest.mark.parametrize("status", [0, 3, 137])
def test_run_returns_the_exit_status_of_the_program(podman: Podman, status: int) -> None:
    podman("run", "--rm", IMAGE, "sh", "-c", f"exit {status}", expect=status)


def test_a_signal_gives_exit_status_128_plus_its_number(podman: Podman) -> None:
    podman("run", "--rm", "--init", IMAGE, "sh", "-c", "kill -TERM $$", expect=128 + 15)


def test_stdout_and_stderr_are_separate(podman: Podman) -> None:
    done = podman("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_standard_input_reaches_the_program_until_end_of_file(podman: Podman) -> None:
    text = "line\n" * 20000
    assert podman("run", "--rm", "-i", IMAGE, "cat", input=text).stdout == text


def test_run_sets_environment_user_groups_and_directory(podman: Podman) -> None:
    flags = ("-e", "ONE=1", "-u", "33:100", "--group-add", "8", "-w", "/var/www")
    output = podman.out("run", "--rm", *flags, IMAGE, "sh", "-c", "echo $ONE; pwd; id")
    assert output.splitlines() == [
        "1",
        "/var/www",
        "uid=33(www-data) gid=100(users) groups=8(mail),100(users)",
    ]


def test_run_sets_hostname_and_domain(podman: Podman) -> None:
    assert podman.out("run", "--rm", "--hostname", "inner", IMAGE, "hostname") == "inner"


def test_a_missing_program_gives_exit_status_127(podman: Podman) -> None:
    done = podman("run", "--rm", IMAGE, "/nonexistent", expect=127)
    assert "/nonexistent" in done.stderr
    assert "no such file or directory" in done.stderr.lower()


def test_a_program_missing_from_path_gives_exit_status_127(podman: Podman) -> None:
    done = podman("run", "--rm", IMAGE, "nonexistent", expect=127)
    assert "nonexistent" in done.stderr


@pytest.mark.parametrize("program", ["/etc/passwd", "/etc"])
def test_a_program_that_cannot_be_executed_gives_exit_status_126(
    podman: Podman, program: str
) -> None:
    done = podman("run", "--rm", IMAGE, program, expect=126)
    assert program in done.stderr


def test_a_failed_start_leaves_a_container_that_can_be_removed(podman: Podman) -> None:
    podman("run", "--name", "failed", IMAGE, "/nonexistent", expect=127)
    assert podman.out("inspect", "-f", "{{.State.Status}}", "failed") in ("created", "initialized")
    podman("rm", "failed")


def test_the_terminal_has_the_size_of_the_client_and_follows_it(podman: Podman) -> None:
    with podman.terminal("run", "--rm", "-it", IMAGE, "sh") as terminal:
        has_terminal(terminal)
        follows_size(terminal)
        terminal.send("exit 7\n")
        assert terminal.wait() == 7


def test_an_interrupt_at_the_terminal_reaches_the_program(podman: Podman) -> None:
    script = "echo ready; sleep 99; true"
    with podman.terminal("run", "--rm", "-it", "--init", IMAGE, "sh", "-c", script) as terminal:
        terminal.expect("ready")
        terminal.send("\x03")
        assert terminal.wait() == 130


def test_detach_keys_leave_the_container_running(podman: Podman) -> None:
    keys = ("--detach-keys", "ctrl-x,x")
    with podman.terminal("run", "-it", "--name", "left", *keys, IMAGE, "sh") as terminal:
        terminal.expect("# ")
        for key in "\x18x":  # podman knows the keys only when each comes alone
            terminal.send(key)
            time.sleep(0.3)
        assert terminal.wait() == 0
    assert podman.out("inspect", "-f", "{{.State.Running}}", "left") == "true"
    with podman.terminal("attach", "left") as terminal:
        terminal.send("echo $((6*7))\n")
        terminal.expect(r"\b42\b")
        terminal.send("exit 5\n")
        terminal.wait()
    assert podman.out("wait", "left") == "5"
    podman("rm", "left")


@pytest.mark.parametrize("driver", ["k8s-file", "none"])
def test_log_drivers_receive_the_output(podman: Podman, driver: str) -> None:
    podman("run", "--name", "logged", "--log-driver", driver, IMAGE, "echo", "spoken")
    logs = podman("logs", "logged", expect=None)
    assert (logs.stdout == "spoken\n") == (driver == "k8s-file")
    podman("rm", "logged")


def test_init_runs_and_descriptors_are_preserved(podman: Podman) -> None:
    words = ("--init", "--preserve-fds", "1", IMAGE, "sh", "-c", "cat /proc/1/comm; cat <&3")
    handed = ("sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh")
    done = podman("run", "--rm", *words, before=handed, input="handed\n")
    assert done.stdout.splitlines()[1] == "handed"


def test_no_descriptor_of_the_caller_is_inherited(podman: Podman) -> None:
    output = podman.out("run", "--rm", IMAGE, "sh", "-c", "ls /proc/$$/fd; true")
    assert output.split() == ["0", "1", "2"]


def test_no_output_is_lost_when_a_program_exits(podman: Podman) -> None:
    for number in range(5):
        output = podman.out("run", "--rm", IMAGE, "seq", "1", "2000")
        assert output.count("\n") == 1999, f"round {number}"
