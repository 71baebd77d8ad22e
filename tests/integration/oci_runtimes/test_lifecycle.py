"""A container of an external runtime behaves like ours, for the client."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from harness import containers
from harness.audits import Audited
from harness.containers import eventually
from harness.engine import PROJECT, PrivateEngine
from harness.host_mounts import host_mounts
from harness.terminal import Terminal
from jaula.features.verify.model.result import Verdict

IMAGE = "busybox"
SCRIPT = "trap 'echo ended; exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.1; done"


def run(engine: PrivateEngine, runtime: str, *words: str, **options: str) -> tuple[int, str, str]:
    """``run --rm`` with these flags, image and command: status, output, error output."""
    done = engine.cli("jaula", "run", "--rm", "--runtime", runtime, *words, **options)
    return done.returncode, done.stdout, done.stderr


def flagged(runtime: str, *more: str) -> tuple[str, ...]:
    return ("--runtime", runtime, *more)


@pytest.fixture(autouse=True)
def clean(host: PrivateEngine, request: pytest.FixtureRequest) -> object:
    """After each test nothing is left of its containers."""
    yield
    host.remove_containers()
    containers.assert_clean(host)


def test_output_and_exit_status_are_returned(host: PrivateEngine, runtime: str) -> None:
    script = "echo out; echo err >&2; exit 7"
    assert run(host, runtime, IMAGE, "sh", "-c", script) == (7, "out\n", "err\n")


def test_a_program_that_a_signal_kills_has_dockers_status(
    host: PrivateEngine, runtime: str
) -> None:
    with containers.running(host, IMAGE, "sh", "-c", SCRIPT, flags=flagged(runtime)) as name:
        assert host.cli("jaula", "kill", name).returncode == 0
        done = host.cli("jaula", "wait", name)
        assert done.stdout.strip() == "137"


@pytest.mark.parametrize(("program", "status"), [("/nosuch", 127), ("nosuch", 127), ("/etc", 126)])
def test_a_program_that_cannot_start_is_reported_as_docker_does(
    host: PrivateEngine, runtime: str, program: str, status: int
) -> None:
    code, _, output = run(host, runtime, IMAGE, program)
    assert code == status
    assert "OCI runtime" in output


def test_input_reaches_the_program(host: PrivateEngine, runtime: str) -> None:
    text = "".join(f"line {number}\n" for number in range(100_000))
    code, out, _ = run(host, runtime, "-i", IMAGE, "cat", input=text)
    assert code == 0
    assert out == text


def test_the_terminal_is_the_containers(host: PrivateEngine, runtime: str) -> None:
    words = [str(PROJECT / "jaula"), "run", "--rm", "-it", "--runtime", runtime, IMAGE, "sh"]
    with Terminal(words, host.environment(), 31, 97) as person:
        person.expect(r"# ")
        person.send("stty size; tty\r")
        person.expect(r"31 97")
        person.expect(r"/dev/(pts/0|console)")
        person.resize(33, 98)
        time.sleep(0.5)
        person.send("stty size\r")
        person.expect(r"33 98")
        person.send("exit 5\r")
        assert person.wait() == 5


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command")
def test_the_docker_command_works(host: PrivateEngine, runtime: str) -> None:
    words = ["docker", "run", "--rm", "-it", "--runtime", runtime, IMAGE, "sh"]
    with Terminal(words, host.environment()) as person:
        person.expect(r"# ")
        person.send("echo $((6*7))\r")
        person.expect(r"42")
        person.send("exit 4\r")
        assert person.wait() == 4
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        done = host.cli("docker", "exec", name, "sh", "-c", "echo in; exit 9")
        assert (done.returncode, done.stdout) == (9, "in\n")


def test_attach_and_logs(host: PrivateEngine, runtime: str) -> None:
    flags = flagged(runtime, "-t", "-i")
    with containers.running(host, IMAGE, "sh", flags=flags) as name:
        words = [str(PROJECT / "jaula"), "attach", name]
        with Terminal(words, host.environment()) as person:
            person.send("echo at$((1+1))\r")
            person.expect(r"at2")
            person.send("\x10\x11")  # the detach keys
            assert person.wait() == 0
        assert containers.inspect(host, name)["State"]["Running"]
        assert "at2" in host.cli("jaula", "logs", name).stdout


def test_exec_has_its_own_exit_status(host: PrivateEngine, runtime: str) -> None:
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        done = host.cli("jaula", "exec", name, "sh", "-c", "echo out; echo err >&2; exit 6")
        assert (done.returncode, done.stdout, done.stderr) == (6, "out\n", "err\n")
        done = host.cli("jaula", "exec", "-i", name, "cat", input="through")
        assert done.stdout == "through"
        done = host.cli("jaula", "exec", "-u", "33:33", "-w", "/tmp", "-e", "A=b", name, "sh", "-c",
                        "id -u; pwd; echo $A")  # fmt: skip
        assert done.stdout.split() == ["33", "/tmp", "b"]
        assert host.cli("jaula", "exec", name, "nosuch").returncode == 127
        assert host.cli("jaula", "exec", name, "/etc").returncode == 126


def test_exec_with_a_terminal(host: PrivateEngine, runtime: str) -> None:
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        words = [str(PROJECT / "jaula"), "exec", "-it", name, "sh"]
        with Terminal(words, host.environment(), 40, 101) as person:
            person.expect(r"# ")
            person.send("stty size\r")
            person.expect(r"40 101")
            person.send("exit 8\r")
            assert person.wait() == 8


def test_many_execs_leave_nothing_in_the_shim(host: PrivateEngine, runtime: str) -> None:
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        shim = containers.shim(containers.pid(host, name))
        before = len(os.listdir(f"/proc/{shim}/fd"))
        for _ in range(5):
            assert host.cli("jaula", "exec", name, "true").returncode == 0
        eventually(lambda: len(os.listdir(f"/proc/{shim}/fd")) <= before, "descriptors are closed")
        children = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
        assert children == [str(containers.pid(host, name))]


def test_stop_sends_sigterm_first(host: PrivateEngine, runtime: str) -> None:
    with containers.running(host, IMAGE, "sh", "-c", SCRIPT, flags=flagged(runtime)) as name:
        eventually(lambda: "out" in host.cli("jaula", "logs", name).stdout, "the trap is set")
        assert host.cli("jaula", "stop", "-t", "20", name).returncode == 0
        assert containers.inspect(host, name)["State"]["ExitCode"] == 3
        assert host.cli("jaula", "logs", name).stdout == "out\nended\n"
        assert host.cli("jaula", "start", name).returncode == 0
        assert host.cli("jaula", "restart", "-t", "0", name).returncode == 0
        assert containers.inspect(host, name)["State"]["Running"]


def test_pause_freezes_every_process_and_unpause_thaws(host: PrivateEngine, runtime: str) -> None:
    script = "while :; do echo x; sleep 0.05; done"
    with containers.running(host, IMAGE, "sh", "-c", script, flags=flagged(runtime)) as name:
        assert host.cli("jaula", "pause", name).returncode == 0
        size = len(host.cli("jaula", "logs", name).stdout)
        time.sleep(0.4)
        assert len(host.cli("jaula", "logs", name).stdout) == size
        assert containers.inspect(host, name)["State"]["Paused"]
        assert host.cli("jaula", "unpause", name).returncode == 0
        eventually(lambda: len(host.cli("jaula", "logs", name).stdout) > size, "it goes on")
        assert host.cli("jaula", "pause", name).returncode == 0
        assert host.cli("jaula", "rm", "-f", name).returncode == 0


def test_limits_are_set_changed_and_measured(host: PrivateEngine, runtime: str) -> None:
    flags = flagged(runtime, "-m", "64m", "--pids-limit", "50")
    with containers.running(host, IMAGE, flags=flags) as name:
        pid = containers.pid(host, name)

        def limit() -> str:
            return containers.cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max")

        assert limit() == str(64 << 20)
        assert containers.cgroup_file(pid, "pids", "pids.max", "pids.max") == "50"
        done = host.cli("jaula", "update", "-m", "96m", "--memory-swap", "192m", name)
        assert done.returncode == 0, done.stderr
        assert limit() == str(96 << 20)
        reply = host.request("GET", f"/containers/{name}/stats?stream=false").json()
        assert reply["memory_stats"]["limit"] == 96 << 20
        assert reply["pids_stats"]["current"] == 1
        assert "sleep 600" in host.cli("jaula", "top", name).stdout


def test_an_oom_kill_is_reported(host: PrivateEngine, runtime: str) -> None:
    name = containers.unique()
    words = ("run", "--name", name, "--runtime", runtime, "-m", "16m", "--memory-swap", "16m")
    # tail keeps the one line that /dev/zero is.
    done = host.cli("jaula", *words, IMAGE, "tail", "/dev/zero")
    assert done.returncode == 137, done.stderr
    assert containers.inspect(host, name)["State"]["OOMKilled"]


def test_volumes_belong_to_the_containers_root(
    host: PrivateEngine, runtime: str, tmp_path: Path
) -> None:
    (tmp_path / "given").write_text("from the host")
    script = "cat /b/given; echo made > /v/file; ls -ln /v/file; echo no > /b/given"
    code, out, error = run(
        host, runtime, "-v", "vol:/v", "-v", f"{tmp_path}:/b:ro", IMAGE, "sh", "-c", script
    )
    assert code == 1, error  # the bind is read-only
    assert re.match(r"from the host-rw-r--r-- +1 0 +0 ", out)
    assert run(host, runtime, "-v", "vol:/v", IMAGE, "cat", "/v/file")[1] == "made\n"
    assert run(host, "jaula", "-v", "vol:/v", IMAGE, "cat", "/v/file")[1] == "made\n"
    assert host.cli("jaula", "volume", "rm", "vol").returncode == 0
    assert (tmp_path / "given").read_text() == "from the host"


def test_the_root_can_be_read_only_and_keeps_its_changes_otherwise(
    host: PrivateEngine, runtime: str
) -> None:
    assert run(host, runtime, "--read-only", IMAGE, "touch", "/x")[0] == 1
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        assert host.cli("jaula", "exec", name, "touch", "/kept").returncode == 0
        assert "A /kept" in host.cli("jaula", "diff", name).stdout
        assert host.cli("jaula", "restart", "-t", "0", name).returncode == 0
        assert host.cli("jaula", "exec", name, "ls", "/kept").returncode == 0


def test_a_device_has_the_requested_path(host: PrivateEngine, runtime: str) -> None:
    words = ("--device", "/dev/zero:/dev/mine", IMAGE, "head", "-c", "3", "/dev/mine")
    assert run(host, runtime, *words)[:2] == (0, "\0\0\0")


def test_a_container_has_its_own_ids_and_address(host: PrivateEngine, runtime: str) -> None:
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        pid = containers.pid(host, name)
        inside, outside, size = Path(f"/proc/{pid}/uid_map").read_text().split()
        assert (inside, size) == ("0", "65536")
        assert int(outside) >= 2_000_000_000
        address = containers.address(host, name)
        assert address in host.cli("jaula", "exec", name, "ip", "addr").stdout


def test_a_published_port_reaches_the_container(host: PrivateEngine, runtime: str) -> None:
    script = "while :; do echo hello | nc -l -p 80; done"
    flags = flagged(runtime, "-p", "127.0.0.1::80")
    with containers.running(host, IMAGE, "sh", "-c", script, flags=flags) as name:
        ports = containers.inspect(host, name)["NetworkSettings"]["Ports"]
        port = int(ports["80/tcp"][0]["HostPort"])

        def answers() -> bool:
            import socket

            try:
                with socket.create_connection(("127.0.0.1", port), 2) as sock:
                    sock.settimeout(2)
                    return sock.recv(16) == b"hello\n"
            except OSError:
                return False

        eventually(answers, "the port answers")


def test_a_container_joins_the_network_of_another(host: PrivateEngine, runtime: str) -> None:
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        address = containers.address(host, name)
        code, out, output = run(
            host, runtime, "--network", f"container:{name}", IMAGE, "ip", "addr"
        )
        assert code == 0, output
        assert address in out


def test_a_container_runs_without_a_user_namespace(host: PrivateEngine, runtime: str) -> None:
    words = ("--userns", "host", "--network", "none", IMAGE, "cat", "/proc/self/uid_map")
    code, out, output = run(host, runtime, *words)
    assert code == 0, output
    assert out.split() == ["0", "0", "4294967295"]


def test_info_inspect_and_verify_show_the_runtime(host: PrivateEngine, runtime: str) -> None:
    info = host.request("GET", "/info").json()
    assert info["DefaultRuntime"] == "jaula"
    features = info["Runtimes"][runtime]["status"]["org.opencontainers.runtime-spec.features"]
    assert json.loads(features)["ociVersionMax"].startswith("1.")
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        assert containers.inspect(host, name)["HostConfig"]["Runtime"] == runtime
        done = host.cli("jaula", "verify", name)
        assert done.returncode in (0, 1), done.stderr  # 1: some row does not hold, and is named
        rows = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
        assert {"mounts", "masks", "devices"} <= rows, done.stdout


def test_seals_and_layers_of_a_container_of_the_runtime_hold(
    host: PrivateEngine, runtime: str
) -> None:
    with containers.running(host, IMAGE, flags=flagged(runtime)) as name:
        assert host.cli("jaula", "restart", "-t", "0", name).returncode == 0
        rows = Audited(host, name).rows()
        for row in ("request seal", "spec seal", "image documents", "image layers"):
            assert rows[row].verdict is Verdict.HOLDS, rows[row]
        assert rows["image layers"].effective == "1 layer seen in the root"
        path = host.root / "lib/containers" / containers.inspect(host, name)["Id"] / "config.json"
        path.write_bytes(path.read_bytes() + b" ")
        assert Audited(host, name).rows()["spec seal"].verdict is Verdict.FAILS


def test_nothing_is_mounted_on_the_host(host: PrivateEngine, runtime: str) -> None:
    before = host_mounts(host.root, host.run)
    with containers.running(host, IMAGE, flags=flagged(runtime)):
        assert host_mounts(host.root, host.run) == before
