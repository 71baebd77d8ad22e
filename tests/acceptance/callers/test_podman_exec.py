"""`podman exec` through the runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.callers.caller import IMAGE, follows_size, has_terminal, until
from harness.callers.podman import Podman

pytestmark = [pytest.mark.needs("podman"), pytest.mark.xdist_group("podman")]


@pytest.fixture(scope="module")
def running(podman: Podman) -> Iterator[str]:
    """Yield an idle container for many commands."""
    podman("run", "-d", "--name", "host", "--init", IMAGE, "sleep", "1000")
    yield "host"
    podman("rm", "-f", "-t", "0", "host")


def test_exec_returns_exit_status_and_streams(podman: Podman, running: str) -> None:
    done = podman("exec", running, "sh", "-c", "echo out; echo err >&2; exit 4", expect=4)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_standard_input_reaches_the_program(podman: Podman, running: str) -> None:
    assert podman("exec", "-i", running, "wc", "-c", input="x" * 70000).stdout.strip() == "70000"


def test_exec_sets_user_environment_and_directory(podman: Podman, running: str) -> None:
    flags = ("-u", "www-data", "-w", "/tmp", "-e", "A=b c")
    output = podman.out("exec", *flags, running, "sh", "-c", "id -un; pwd; echo $A")
    assert output.splitlines() == ["www-data", "/tmp", "b c"]


def test_exec_has_the_namespaces_cgroup_and_limits_of_the_container(
    podman: Podman, running: str
) -> None:
    script = (
        "for k in mnt pid net ipc uts; do readlink /proc/self/ns/$k; done; cat /proc/self/cgroup"
    )
    own = podman.out("exec", running, "sh", "-c", script)
    first = podman.out("exec", running, "sh", "-c", script.replace("self", "1"))
    assert own == first


def test_exec_has_the_capabilities_and_filter_of_the_container(
    podman: Podman, running: str
) -> None:
    script = "grep -E '^(Cap(Prm|Eff|Bnd)|Seccomp|NoNewPrivs):' /proc/{}/status"
    own = podman.out("exec", running, "sh", "-c", script.format("self"))
    assert own == podman.out("exec", running, "sh", "-c", script.format("1"))
    assert "Seccomp:\t2" in own


def test_a_privileged_exec_has_the_whole_bounding_set(podman: Podman, running: str) -> None:
    script = "grep -E '^Cap(Eff|Bnd):' /proc/self/status | sort -u -k2 | wc -l"
    assert podman.out("exec", "--privileged", running, "sh", "-c", script) == "1"


def test_exec_has_a_terminal(podman: Podman, running: str) -> None:
    with podman.terminal("exec", "-it", running, "sh") as terminal:
        has_terminal(terminal)
        follows_size(terminal)
        terminal.send("exit 9\n")
        assert terminal.wait() == 9


def test_exec_may_be_detached(podman: Podman, running: str) -> None:
    podman("exec", "-d", running, "sh", "-c", "echo done >/tmp/detached")
    until(
        lambda: podman("exec", running, "cat", "/tmp/detached", expect=None).stdout == "done\n",
        "the detached program writes its file",
    )


@pytest.mark.parametrize(("program", "status"), [("/nonexistent", 127), ("/etc/passwd", 126)])
def test_programs_that_cannot_be_executed_have_an_exit_status(
    podman: Podman, running: str, program: str, status: int
) -> None:
    podman("exec", running, program, expect=status)


def test_a_missing_working_directory_is_an_error(podman: Podman, running: str) -> None:
    done = podman("exec", "-w", "/not/there", running, "true", expect=None)
    assert done.returncode in (126, 127)
    assert "/not/there" in done.stderr


def test_many_execs_run_at_once(podman: Podman, running: str) -> None:
    script = "for n in 1 2 3 4; do sh -c 'exit 0' & done; wait; echo all"
    for _ in range(4):
        assert podman.out("exec", running, "sh", "-c", script) == "all"


def test_no_descriptor_of_the_caller_is_inherited(podman: Podman, running: str) -> None:
    output = podman.out("exec", running, "sh", "-c", "ls /proc/$$/fd; true")
    assert output.split() == ["0", "1", "2"]


def test_the_exit_of_the_container_ends_its_execs(podman: Podman) -> None:
    podman("run", "-d", "--name", "short", IMAGE, "sleep", "1000")
    with podman.terminal("exec", "-it", "short", "sh") as terminal:
        terminal.expect("# ")
        podman("kill", "short")
        assert terminal.wait() == 137
    podman("rm", "-f", "-t", "0", "short")
