"""podman of an unprivileged user: the runtime has only that user's rights in a user namespace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.callers.caller import IMAGE, has_terminal, until
from harness.callers.podman import RootlessPodman

pytestmark = [pytest.mark.needs("podman"), pytest.mark.xdist_group("rootless")]


@pytest.fixture
def container(rootless: RootlessPodman) -> Iterator[str]:
    rootless("run", "-d", "--name", "mine", "--init", IMAGE, "sleep", "1000")
    yield "mine"
    rootless("rm", "-f", "-t", "0", "mine")


def test_run_returns_streams_and_exit_status(rootless: RootlessPodman) -> None:
    script = "cat; echo err >&2; exit 4"
    done = rootless("run", "--rm", "-i", IMAGE, "sh", "-c", script, input="in\n", expect=4)
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


def test_root_is_mapped_to_the_user(rootless: RootlessPodman) -> None:
    output = rootless.out("run", "--rm", IMAGE, "sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map")
    assert output.splitlines() == ["0", f" 0 {rootless.uid} 1", " 1 3000000 65536"]


def test_other_users_are_mapped_to_subordinate_ids(rootless: RootlessPodman) -> None:
    shared = rootless.namespaces.base / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    rootless("run", "--rm", "-u", "33", "-v", f"{shared}:/shared", IMAGE, "touch", "/shared/made")
    assert (shared / "made").stat().st_uid == 3_000_000 + 32


def test_keep_id_maps_the_user_to_itself(rootless: RootlessPodman) -> None:
    output = rootless.out("run", "--rm", "--userns", "keep-id", IMAGE, "id", "-u")
    assert output == str(rootless.uid)


def test_a_container_is_confined(rootless: RootlessPodman) -> None:
    flags = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
    script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; touch /x || echo ro"
    script += "; wc -c </proc/timer_list"
    output = rootless.out("run", "--rm", *flags, IMAGE, "sh", "-c", script)
    assert output.splitlines() == [
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "ro",
        "0",
    ]


def test_devices_and_mounts_are_made(rootless: RootlessPodman) -> None:
    script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done"
    script += "; echo x >/dev/null && df -k /scratch | tail -1; ls -d /dev/pts/ptmx /dev/shm"
    output = rootless.out("run", "--rm", "--tmpfs", "/scratch:size=1m", IMAGE, "sh", "-c", script)
    lines = output.splitlines()
    assert lines[0].split()[1] == "1024"
    assert lines[1:] == ["/dev/pts/ptmx", "/dev/shm"]


def test_a_named_volume_is_mounted(rootless: RootlessPodman) -> None:
    rootless("volume", "create", "named")
    rootless("run", "--rm", "-v", "named:/v", IMAGE, "sh", "-c", "echo kept >/v/file")
    assert rootless.out("run", "--rm", "-v", "named:/v:ro", IMAGE, "cat", "/v/file") == "kept"
    rootless("volume", "rm", "named")


def test_sysctls_and_process_limits_are_set(rootless: RootlessPodman) -> None:
    flags = ("--sysctl", "net.ipv4.ip_forward=1", "--ulimit", "nofile=100:200")
    script = "cat /proc/sys/net/ipv4/ip_forward; ulimit -n; ulimit -Hn"
    output = rootless.out("run", "--rm", *flags, IMAGE, "sh", "-c", script)
    assert output.splitlines() == ["1", "100", "200"]


@pytest.mark.parametrize(("program", "status"), [("/nonexistent", 127), ("/etc/passwd", 126)])
def test_programs_that_cannot_be_executed_have_an_exit_status(
    rootless: RootlessPodman, program: str, status: int
) -> None:
    rootless("run", "--rm", IMAGE, program, expect=status)


def test_run_has_a_terminal(rootless: RootlessPodman) -> None:
    with rootless.terminal("run", "--rm", "-it", IMAGE, "sh") as terminal:
        has_terminal(terminal)
        terminal.send("exit 7\n")
        assert terminal.wait() == 7


def test_exec_runs_a_command(rootless: RootlessPodman, container: str) -> None:
    flags = ("-u", "33", "-w", "/tmp", "-e", "A=b")
    done = rootless("exec", *flags, container, "sh", "-c", "id -u; pwd; echo $A; exit 5", expect=5)
    assert done.stdout == "33\n/tmp\nb\n"


def test_exec_has_a_terminal(rootless: RootlessPodman, container: str) -> None:
    with rootless.terminal("exec", "-it", container, "sh") as terminal:
        terminal.expect("# ")
        terminal.send("tty\n")
        terminal.expect(r"/dev/pts/0")
        terminal.send("exit 9\n")
        assert terminal.wait() == 9


def test_kill_stop_and_start_work(rootless: RootlessPodman, container: str) -> None:
    rootless("stop", "-t", "5", container)
    assert rootless.out("inspect", "-f", "{{.State.ExitCode}}", container) == "143"
    rootless("start", container)
    rootless("kill", "-s", "KILL", container)
    until(
        lambda: rootless.out("inspect", "-f", "{{.State.Status}}", container) == "exited",
        "the container ends",
    )


def test_an_initialised_container_is_started_later(rootless: RootlessPodman) -> None:
    rootless("create", "--name", "staged", IMAGE, "echo", "begun")
    rootless("init", "staged")
    assert rootless("start", "-a", "staged").stdout == "begun\n"
    rootless("rm", "staged")


def test_pods_share_namespaces(rootless: RootlessPodman) -> None:
    rootless("pod", "create", "--name", "pod", "--network", "none", "--share", "pid,ipc,net,uts")
    for name in ("one", "two"):
        rootless("run", "-d", "--pod", "pod", "--name", name, IMAGE, "sleep", "1000")
    script = "for k in user pid ipc net uts mnt; do readlink /proc/self/ns/$k; done"
    one, two = (rootless.out("exec", n, "sh", "-c", script).split() for n in ("one", "two"))
    assert one[:5] == two[:5]
    assert one[5] != two[5]
    rootless("pod", "stop", "-t", "0", "pod")
    rootless("pod", "rm", "-f", "-t", "0", "pod")
