"""The log of a pod's container through an engine: started, rotated, read, without an engine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import containers, pod_container
from harness.engine import PROJECT, PrivateEngine
from jaula.runtime import seqpacket, shim_protocol
from jaula.runtime.shim_protocol import Answer, ReopenLogRequest

Make = Callable[..., PrivateEngine]


@pytest.fixture
def stopped(new_engine: Make, busybox_archive: Path) -> PrivateEngine:
    """Return an engine that has an image and does not run."""
    engine = new_engine()
    with busybox_archive.open("rb") as archive:
        assert engine.cli("jaula", "load", stdin=archive).returncode == 0
    done = engine.cli("docker", "create", "--name", "plain", "busybox", "true")
    assert done.returncode == 0, done.stderr
    engine.stop()
    return engine


@contextmanager
def pod(
    engine: PrivateEngine, log: Path, *command: str
) -> Iterator[tuple[str, str, Callable[[str], str]]]:
    """Create and start a container that logs to ``log``, below its directory's directory.

    Yield its id, how the start went, and a function that opens a log again.
    """
    index = 2_000_000_000 + engine.index * 5_000_000
    program = subprocess.Popen(
        [
            *(sys.executable, pod_container.__file__, str(engine.root / "lib"), str(engine.run)),
            *(engine.cgroup_parent, str(index), "busybox"),
            *(str(log.parent.parent), f"{log.parent.name}/{log.name}", *command),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
    )
    assert program.stdin is not None
    assert program.stdout is not None
    output, words = program.stdout, program.stdin

    def reopen(ref: str) -> str:
        words.write(f"reopen {ref}\n")
        words.flush()
        return output.readline().rstrip()

    try:
        yield output.readline().rstrip(), output.readline().rstrip(), reopen
    finally:
        words.close()
        program.wait(30)
        output.close()


WRITER = "i=0; while true; do echo line $i; echo error $i >&2; i=$((i+1)); sleep 0.05; done"


def test_the_log_is_rotated_read_and_goes_on_without_an_engine(
    stopped: PrivateEngine, tmp_path: Path
) -> None:
    engine, log = stopped, tmp_path / "web/0.log"
    rotated = tmp_path / "web/0.log.20240506-070809"
    with pod(engine, log, "sh", "-c", WRITER) as (container, started, reopen):
        assert started == "started"
        containers.eventually(lambda: b"line 1\n" in log.read_bytes(), "the second line")
        log.rename(rotated)
        assert reopen(container) == "opened"
        containers.eventually(lambda: b" line " in log.read_bytes(), "a line in the new file")
        assert "is not rotated by another program" in reopen("plain")
        log.rename(tmp_path / "web/kept")
        log.symlink_to("/etc/hostname")
        assert f"cannot open the log {log} again" in reopen(container)
        log.unlink()
        (tmp_path / "web/kept").rename(log)
    size = log.stat().st_size  # no engine runs now
    containers.eventually(lambda: log.stat().st_size > size, "more lines")
    engine.start()
    document = containers.inspect(engine, container)
    assert document["LogPath"] == str(log)
    assert document["HostConfig"]["LogConfig"] == {
        "Type": "cri",
        "Config": {"directory": str(tmp_path), "path": "web/0.log"},
    }
    follower = subprocess.Popen(
        ["docker", "logs", "--follow", "--tail", "2", container],
        env=engine.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert follower.stdout is not None
    first = follower.stdout.readline()
    assert re.fullmatch(r"line \d+\n", first)
    engine.request("POST", f"/containers/{container}/kill")
    rest = follower.stdout.read()
    assert follower.wait(20) == 0
    numbers = [int(line.split()[1]) for line in (first + rest).splitlines()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    files = rotated.read_bytes() + log.read_bytes()
    for stream, word in (("stdout", "line"), ("stderr", "error")):
        pattern = re.compile(rf"^\S+Z {stream} F {word} (\d+)$".encode(), re.MULTILINE)
        assert list(map(int, pattern.findall(files))) == list(range(numbers[-1] + 1))
    done = engine.cli("docker", "logs", "--timestamps", "--tail", "4", container)
    shown = sorted((done.stdout + done.stderr).splitlines())
    entries = log.read_text().splitlines()[-4:]
    assert shown == sorted(re.sub(r" std\w+ F", "", line) for line in entries)
    stamp = entries[-1].split()[0]
    done = engine.cli("docker", "logs", "--since", stamp, container)
    assert (done.stdout + done.stderr).splitlines() == [entries[-1].split(" F ")[1]]
    engine.request("DELETE", f"/containers/{container}?force=1")
    assert log.exists()  # it is the kubelet's


def reopen_by_shim(engine: PrivateEngine, container: str) -> Answer:
    """Ask a container's shim to open the log again, as another engine would."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as shim,
        seqpacket.SocketDir(str(engine.run / "containers" / container)) as directory,
    ):
        shim.settimeout(20)
        shim.connect(f"{directory}/shim.sock")
        seqpacket.send(shim, shim_protocol.encode(ReopenLogRequest(7)))
        answer = shim_protocol.decode_from_shim(seqpacket.receive(shim)[0])
        assert isinstance(answer, Answer)
        return answer


def test_a_follower_goes_on_after_rotations(stopped: PrivateEngine, tmp_path: Path) -> None:
    engine, log = stopped, tmp_path / "web/0.log"
    with pod(engine, log, "sh", "-c", WRITER) as (container, started, _):
        assert started == "started"
    engine.start()
    follower = subprocess.Popen(
        ["docker", "logs", "--follow", container],
        env=engine.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert follower.stdout is not None
    output, numbers = follower.stdout, list[int]()
    for rotation in range(3):
        for _ in range(5):
            numbers.append(int(output.readline().split()[1]))
        log.rename(f"{log}.{rotation}")
        assert reopen_by_shim(engine, container) == Answer(7)
        position = numbers[-1]
        containers.eventually(lambda: b"line" in log.read_bytes(), "a line in the new file")
        while numbers[-1] < position + 5:
            numbers.append(int(output.readline().split()[1]))
    engine.request("POST", f"/containers/{container}/kill")
    numbers += [int(line.split()[1]) for line in output]
    assert follower.wait(20) == 0
    assert numbers == list(range(len(numbers)))


def test_a_shim_that_is_killed_leaves_a_log_that_the_next_start_continues(
    stopped: PrivateEngine, tmp_path: Path
) -> None:
    engine, log = stopped, tmp_path / "web/0.log"
    script = "echo one; printf two; sleep 600"
    with pod(engine, log, "sh", "-c", script) as (container, started, _):
        assert started == "started"
        containers.eventually(lambda: b" one\n" in log.read_bytes(), "the line")
    engine.start()
    pid = int(containers.inspect(engine, container)["State"]["Pid"])
    os.kill(containers.shim(pid), 9)
    containers.eventually(
        lambda: not containers.inspect(engine, container)["State"]["Running"], "the exit"
    )
    with log.open("ab") as file:
        file.write(b"2024-05-06T07:08:09.123456789Z stdout F ha")
    assert engine.request("POST", f"/containers/{container}/start").status == 204
    containers.eventually(
        lambda: engine.cli("docker", "logs", container).stdout == "one\nha\none\n", "both runs"
    )


@pytest.mark.parametrize("place", ["web", "web/0.log"])
def test_a_link_in_the_path_is_an_error_of_the_start_and_of_logs(
    stopped: PrivateEngine, tmp_path: Path, place: str
) -> None:
    engine, directory = stopped, tmp_path / "pod"
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "0.log").write_text("2024-05-06T07:08:09Z stdout F secret\n")
    link = directory / place
    link.parent.mkdir(parents=True)
    link.symlink_to(secret if place == "web" else secret / "0.log")
    with pod(engine, directory / "web/0.log", "echo", "x") as (container, started, _):
        assert started.startswith("RuntimeFailure: ")
        assert str(directory / "web/0.log") in started
    engine.start()
    for flags in ((), ("--follow",), ("--tail", "1")):
        done = engine.cli("docker", "logs", *flags, container)
        assert done.returncode == 1
        assert "secret" not in done.stdout
        assert "Error response from daemon" in done.stderr
    assert (secret / "0.log").read_text() == "2024-05-06T07:08:09Z stdout F secret\n"


@pytest.mark.parametrize("program", ["docker", "jaula"])
def test_a_client_cannot_have_the_driver(
    engine: PrivateEngine, busybox: str, program: str, tmp_path: Path
) -> None:
    flags = ("--log-opt", f"directory={tmp_path}", "--log-opt", "path=0.log")
    done = engine.cli(program, "create", "--log-driver", "cri", *flags, busybox, "true")
    assert done.returncode == 1
    assert "no log driver named 'cri' is registered" in done.stderr
    assert os.listdir(tmp_path) == []
