"""`docker run` with the runtime as dockerd's default: start, streams and exit."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.callers.caller import IMAGE, follows_size, has_terminal
from harness.callers.dockerd import Dockerd

pytestmark = [pytest.mark.needs("dockerd"), pytest.mark.xdist_group("dockerd")]


def inside(dockerd: Dockerd, *flags: str, script: str) -> list[str]:
    return dockerd.out("run", "--rm", *flags, IMAGE, "sh", "-c", script).splitlines()


def test_info_shows_the_default_runtime(dockerd: Dockerd) -> None:
    form = "{{.DefaultRuntime}} {{range $name, $_ := .Runtimes}}{{$name}} {{end}}"
    output = dockerd.out("info", "--format", form).split()
    assert output[0] == dockerd.name
    assert dockerd.name in output[1:]


def test_the_daemon_reads_the_features_without_a_warning(dockerd: Dockerd) -> None:
    log = dockerd.log.read_text()
    assert "failed to query runtime features" not in log.lower()
    assert "failed to parse" not in log.lower()


@pytest.mark.parametrize("status", [0, 3, 137])
def test_run_returns_streams_and_exit_status(dockerd: Dockerd, status: int) -> None:
    script = f"echo out; echo err >&2; exit {status}"
    done = dockerd("run", "--rm", IMAGE, "sh", "-c", script, expect=status)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_standard_input_reaches_the_program_until_end_of_file(dockerd: Dockerd) -> None:
    text = "line\n" * 20000
    assert dockerd("run", "--rm", "-i", IMAGE, "cat", input=text).stdout == text


def test_run_sets_environment_user_directory_and_hostname(dockerd: Dockerd) -> None:
    flags = ("-e", "ONE=1", "-u", "33:100", "--group-add", "8", "-w", "/var/www", "-h", "inner")
    output = inside(dockerd, *flags, script="echo $ONE; pwd; id -u; id -G; hostname")
    assert output == ["1", "/var/www", "33", "100 8", "inner"]


@pytest.mark.parametrize(
    ("program", "status"), [("/nonexistent", 127), ("nonexistent", 127), ("/etc/passwd", 126)]
)
def test_programs_that_cannot_be_executed_have_dockers_exit_status(
    dockerd: Dockerd, program: str, status: int
) -> None:
    done = dockerd("run", "--rm", IMAGE, program, expect=status)
    assert program in done.stderr


def test_the_terminal_has_the_size_of_the_client_and_follows_it(dockerd: Dockerd) -> None:
    with dockerd.terminal("run", "--rm", "-it", IMAGE, "sh") as terminal:
        has_terminal(terminal)
        follows_size(terminal)
        terminal.send("exit 7\n")
        assert terminal.wait() == 7


def test_init_reaps_and_forwards_signals(dockerd: Dockerd) -> None:
    dockerd("run", "-d", "--name", "reaped", "--init", IMAGE, "sleep", "1000")
    assert "init" in dockerd.out("exec", "reaped", "cat", "/proc/1/comm")
    dockerd("stop", "-t", "10", "reaped")
    assert dockerd.out("inspect", "-f", "{{.State.ExitCode}}", "reaped") == "143"
    dockerd("rm", "reaped")


def test_a_container_is_confined_by_default(dockerd: Dockerd) -> None:
    script = "grep -E '^(Seccomp|CapEff):' /proc/self/status; wc -c </proc/timer_list"
    script += "; echo x >/proc/sys/kernel/domainname || echo refused"
    output = inside(dockerd, script=script)
    assert output == ["CapEff:\t00000000a80425fb", "Seccomp:\t2", "0", "refused"]


def test_a_privileged_container_has_every_capability(dockerd: Dockerd) -> None:
    script = "grep Seccomp: /proc/self/status; test -c /dev/kmsg && echo device"
    script += "; mount -t tmpfs none /tmp && echo mounted"
    output = inside(dockerd, "--privileged", script=script)
    assert output == ["Seccomp:\t0", "device", "mounted"]


def test_capabilities_are_added_and_dropped(dockerd: Dockerd) -> None:
    flags = ("--cap-drop", "all", "--cap-add", "net_raw", "--security-opt", "no-new-privileges")
    output = inside(dockerd, *flags, script="grep -E '^(CapEff|NoNewPrivs):' /proc/self/status")
    assert output == [f"CapEff:\t{1 << 13:016x}", "NoNewPrivs:\t1"]


def test_a_read_only_root_has_a_tmpfs(dockerd: Dockerd) -> None:
    flags = ("--read-only", "--tmpfs", "/scratch:size=1m,mode=1770")
    script = "touch /x || echo ro; touch /scratch/x && stat -c %a /scratch"
    script += "; grep -c ' /scratch .*size=1024k' /proc/mounts"
    assert inside(dockerd, *flags, script=script) == ["ro", "1770", "1"]


def test_volumes_are_mounted(dockerd: Dockerd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs\n")
    flags = ("-v", f"{tmp_path}:/rw", "-v", f"{tmp_path}:/ro:ro", "-v", "named:/named")
    script = "cat /ro/file; echo ours >/rw/new; echo no >/ro/new || echo refused; cat /ro/new"
    script += "; touch /named/kept"
    assert inside(dockerd, *flags, script=script) == ["theirs", "refused", "ours"]
    assert inside(dockerd, "-v", "named:/see:ro", script="ls /see") == ["kept"]
    dockerd("volume", "rm", "named")


def test_a_read_only_volume_is_recursively_read_only(dockerd: Dockerd) -> None:
    """dockerd makes volumes recursively read-only if the features of the runtime list it."""
    mount = "type=bind,src=/run,dst=/deep,readonly"
    mount += ",bind-recursive=readonly,bind-propagation=rprivate"
    netns = f"/deep/{dockerd.namespaces.tag}/netns"  # another mount
    script = f"for d in /deep {netns}; do touch $d/x 2>/dev/null || echo ro; done"
    assert inside(dockerd, "--mount", mount, script=script) == ["ro", "ro"]


def test_process_limits_are_set(dockerd: Dockerd) -> None:
    flags = ("--ulimit", "nofile=100:200", "--ulimit", "core=0")
    assert inside(dockerd, *flags, script="ulimit -n; ulimit -Hn; ulimit -c") == ["100", "200", "0"]


def test_namespaced_sysctls_are_set(dockerd: Dockerd) -> None:
    flags = ("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.shm_rmid_forced=1")
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced"
    assert inside(dockerd, *flags, script=script) == ["1", "1"]


def test_devices_are_created(dockerd: Dockerd) -> None:
    script = "stat -c '%F %t:%T' /dev/mine; echo x >/dev/mine && echo written"
    output = inside(dockerd, "--device", "/dev/null:/dev/mine:rw", script=script)
    assert output == ["character special file 1:3", "written"]


def test_an_unlisted_device_cannot_be_opened(dockerd: Dockerd) -> None:
    script = "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg"
    done = dockerd("run", "--rm", IMAGE, "sh", "-c", script, expect=1)
    assert "not permitted" in done.stderr.lower()


def test_namespaces_of_the_host_and_of_another_container_are_shared(dockerd: Dockerd) -> None:
    dockerd("run", "-d", "--name", "other", "--ipc", "shareable", IMAGE, "sleep", "1000")
    flags = ("--pid", "container:other", "--ipc", "container:other")
    assert inside(dockerd, *flags, script="cat /proc/1/comm") == ["sleep"]
    output = inside(dockerd, "--pid", "host", script="readlink /proc/self/ns/pid")
    assert output == [str(Path("/proc/self/ns/pid").readlink())]
    dockerd("rm", "-f", "other")


def test_shm_size_and_oom_score_are_set(dockerd: Dockerd) -> None:
    flags = ("--shm-size", "2m", "--oom-score-adj", "200")
    output = inside(
        dockerd, *flags, script="df -k /dev/shm | tail -1; cat /proc/self/oom_score_adj"
    )
    assert output[0].split()[1] == "2048"
    assert output[1] == "200"
