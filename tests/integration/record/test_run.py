"""``run --record`` and ``create --record``: a record from the first instruction on."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from harness import containers
from harness.containers import eventually, unique
from harness.engine import PROJECT, SLOW, PrivateEngine
from jaula.features.record import record_reader
from jaula.features.record.compare_records import program_of
from jaula.features.record.record_reader import Record


def complete(path: Path) -> Record:
    """Return the record of a file once it has its end."""
    eventually(lambda: path.exists() and b'"type":"end"' in path.read_bytes(), "the end")
    record = record_reader.read(str(path))
    assert record.errors == []
    return record


def recorder_of(errors: str) -> int:
    """Return the pid in ``jaula: process PID records to FILE``."""
    return int(errors.split("process ")[1].split()[0])


def gone(pid: int) -> None:
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the recorder")


def test_the_first_program_is_recorded_from_its_execve_on(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with containers.running(engine, busybox, "sh", "-c", "while :; do usleep 1000; done"):
        done = engine.cli(
            "jaula", "run", "--rm", f"--record={tmp_path}/r", busybox,
            "sh", "-c", "echo out; /bin/cat /etc/hostname; exit 3",
        )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout.startswith("out\n")
    assert f"{tmp_path}/r: " in done.stderr
    record = complete(tmp_path / "r")
    assert record.end is not None
    assert (record.end.reason, record.end.losses) == ("container exited", {})
    assert record.head.hash in done.stderr
    entries = list(record.entries.values())
    first = next(entry for entry in entries if entry.kind == "exec")
    assert program_of(record, first.executed) == ("/bin/sh", "")
    shell = [e for e in entries if program_of(record, e.program)[0] == "/bin/sh"]
    (execve,) = [e for e in shell if (e.kind, e.syscall, e.errno) == ("syscall", "execve", "")]
    assert execve.count == 1
    assert execve.first == min(e.first for e in shell)
    assert not [e for e in entries if e.syscall in ("nanosleep", "clock_nanosleep")]
    (memory,) = [e for e in entries if e.resource == "memory"]
    assert memory.value > 100_000
    assert memory.source == "kernel"
    assert memory.first == 0


def test_a_detached_container_is_recorded_to_its_end(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name, path = unique("record"), tmp_path / "r"
    done = engine.cli(
        "jaula", "run", "-d", "--rm", "--name", name, f"--record={path}", busybox, "sleep", "600"
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64
    recorder = recorder_of(done.stderr)
    assert os.path.exists(f"/proc/{recorder}")
    engine.cli("jaula", "exec", name, "touch", "/tmp/x")
    engine.cli("jaula", "kill", name)
    record = complete(path)
    assert record.end is not None
    assert record.end.reason == "container exited"
    assert "/tmp/x" in {entry.path for entry in record.entries.values()}
    gone(recorder)


def test_a_start_that_fails_leaves_no_record(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    for flags in (("--rm",), ("-d", "--rm")):
        done = engine.cli(
            "jaula", "run", *flags, f"--record={tmp_path}/r", busybox, "/absent-program"
        )
        assert done.returncode == 127
        assert not (tmp_path / "r").exists()


def test_a_record_that_cannot_be_made_creates_no_container(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "existing").write_text("x")
    for path in (tmp_path / "existing", tmp_path / "absent/r"):
        name = unique("record")
        done = engine.cli("jaula", "run", "--name", name, f"--record={path}", busybox, "true")
        assert done.returncode == 125, done.stderr
        assert str(path) in done.stderr
        assert engine.cli("jaula", "inspect", name).returncode == 1
    assert (tmp_path / "existing").read_text() == "x"


def test_a_created_container_is_recorded_when_it_starts(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name, path = unique("record"), tmp_path / "r"
    words = ("create", "--name", name, f"--record={path}", busybox, "true")
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, done.stderr
    recorder = recorder_of(done.stderr)
    assert engine.cli("jaula", "start", name).returncode == 0
    record = complete(path)
    assert [e for e in record.entries.values() if e.kind == "exec"]
    gone(recorder)
    engine.cli("jaula", "rm", name)


def test_a_container_that_is_removed_before_its_start_ends_its_record(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name, path = unique("record"), tmp_path / "r"
    words = ("create", "--name", name, f"--record={path}", busybox, "true")
    recorder = recorder_of(engine.cli("jaula", *words).stderr)
    assert engine.cli("jaula", "rm", name).returncode == 0
    record = complete(path)
    assert record.end is not None
    assert record.end.reason == "container removed before its start"
    gone(recorder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_client_does_not_end_the_record(
    engine: PrivateEngine, busybox: str, tmp_path: Path, number: signal.Signals
) -> None:
    name, path = unique("record"), tmp_path / "r"
    script = "trap 'echo bye; exit 0' INT; echo up; while :; do usleep 10000; done"
    client = subprocess.Popen(
        [str(PROJECT / "jaula"), "run", "--name", name, f"--record={path}", busybox,
         "sh", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=engine.environment(), start_new_session=True,
    )  # fmt: skip
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        os.killpg(client.pid, number)
        output, errors = client.communicate(timeout=30 * SLOW)
    finally:
        client.kill()
        client.wait()
    if number == signal.SIGINT:
        assert (client.returncode, output) == (0, "bye\n")
        assert f"{path}: " in errors
    else:
        assert engine.cli("jaula", "exec", name, "touch", "/tmp/after").returncode == 0
        engine.cli("jaula", "kill", name)
    record = complete(path)
    assert record.end is not None
    assert record.end.reason == "container exited"
    if number == signal.SIGKILL:
        assert "/tmp/after" in {entry.path for entry in record.entries.values()}
    engine.cli("jaula", "rm", "-f", name)


def test_a_client_that_detaches_says_which_process_records(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name, path = unique("record"), tmp_path / "r"
    near, far = pty.openpty()
    client = subprocess.Popen(
        [str(PROJECT / "jaula"), "run", "-it", "--rm", "--name", name, f"--record={path}",
         "--detach-keys", "ctrl-x", busybox, "sh"],
        stdin=far, stdout=far, stderr=subprocess.PIPE, text=True, env=engine.environment(),
    )  # fmt: skip
    try:
        os.write(near, b"echo $((40+2))\n")
        output = b""
        while b"42\r\n" not in output:
            output += os.read(near, 4096)
        os.write(near, b"\x18")
        _, errors = client.communicate(timeout=30 * SLOW)
    finally:
        client.kill()
        client.wait()
        os.close(near)
        os.close(far)
    recorder = recorder_of(errors)
    assert engine.cli("jaula", "kill", name).returncode == 0
    complete(path)
    gone(recorder)
