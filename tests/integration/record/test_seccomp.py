"""A record by a seccomp agent: what it has, and that the container is not changed by it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.features.record import record_reader
from jaula.features.record.compare_records import program_of
from jaula.features.record.record_document import Entry
from jaula.features.record.record_reader import Record

FLAGS = ("--record-mechanism", "seccomp")


def run(
    engine: PrivateEngine, image: str, path: Path, script: str, *flags: str
) -> subprocess.CompletedProcess[str]:
    words = ("run", "--rm", f"--record={path}", *FLAGS, *flags, image, "sh", "-c", script)
    return engine.cli("jaula", *words)


def read(path: Path) -> Record:
    record = record_reader.read(str(path))
    assert record.errors == []
    return record


def of(record: Record, kind: str, program: str = "") -> list[Entry]:
    return [
        entry
        for entry in record.entries.values()
        if entry.kind == kind and (not program or program_of(record, entry.program)[0] == program)
    ]


@contextmanager
def recording(
    engine: PrivateEngine, image: str, path: Path, script: str
) -> Iterator[tuple[str, int]]:
    """Yield the name of a container that is recorded, and the process of its recorder."""
    name = containers.unique()
    done = engine.cli("jaula", "run", "-d", "--name", name, f"--record={path}", *FLAGS, image,
                      "sh", "-c", script)  # fmt: skip
    try:
        assert done.returncode == 0, done.stderr
        found = re.search(r"process (\d+) records", done.stderr)
        assert found is not None, done.stderr
        yield name, int(found[1])
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1&v=1")


def listener(engine: PrivateEngine, name: str) -> Path:
    """Return the socket of the agent."""
    options = containers.inspect(engine, name)["HostConfig"]["SecurityOpt"]
    (path,) = [each.partition("=")[2] for each in options if each.startswith("seccomp-listener=")]
    return Path(path)


def ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_record_has_what_its_header_promises(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    done = run(
        engine,
        busybox,
        tmp_path / "record",
        "echo x > /tmp/known; cd /tmp; /bin/cat known; /bin/cat /tmp/absent; "
        "/bin/nc -w 1 127.0.0.1 4321; (/bin/nc -l -p 99 & usleep 100000; kill $!); "
        "/bin/mount -t tmpfs none /tmp; /bin/sh -c '/bin/true; /bin/true'",
        *("--cap-add", "SYS_ADMIN"),
    )
    assert done.returncode == 0, done.stderr
    record = read(tmp_path / "record")
    assert record.header is not None
    assert record.header.mechanism == "seccomp"
    assert "results of calls" in record.header.not_recorded
    assert record.end is not None
    assert record.end.reason == "container exited"
    assert record.end.losses == {}
    written = [e for e in of(record, "file", "/bin/sh") if e.path == "/tmp/known"]
    assert {(e.mode, e.errno, e.source) for e in written} == {
        ("write,create,truncate", "unknown", "process")
    }
    assert {e.path for e in of(record, "file", "/bin/cat")} == {"/tmp/known", "/tmp/absent"}
    assert {"/bin/sh", "/bin/cat", "/bin/nc", "/bin/mount", "/bin/true"} <= {
        program_of(record, e.executed)[0] for e in of(record, "exec")
    }
    (true,) = [e for e in of(record, "exec") if program_of(record, e.executed)[0] == "/bin/true"]
    assert true.count == 2
    connects = of(record, "connect", "/bin/nc")
    assert {(e.address, e.port, e.protocol, e.errno) for e in connects} == {
        ("127.0.0.1", 4321, "tcp", "unknown")
    }
    assert 99 in {e.port for e in of(record, "bind", "/bin/nc")}
    (mount,) = of(record, "mount", "/bin/mount")
    assert (mount.path, mount.filesystem, mount.device) == ("/tmp", "tmpfs", "none")


def test_a_program_does_the_same_as_without_a_record(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    script = (
        "cat /absent; echo $?; echo x > /etc/new; cat /etc/new; mount -t tmpfs none /mnt; echo $?; "
        "nc -w 1 127.0.0.1 1; echo $?; /absent; echo $?; "
        "(sleep 100 & kill -9 $!; wait $!; echo $?);"
        "for i in 1 2 3 4 5; do (ls / | sort | tail -1) & done; wait; grep -c . /proc/self/status"
    )
    plain = engine.cli("jaula", "run", "--rm", busybox, "sh", "-c", script)
    recorded = run(engine, busybox, tmp_path / "record", script)
    assert sorted(recorded.stdout.splitlines()) == sorted(plain.stdout.splitlines())
    assert recorded.returncode == plain.returncode


def test_an_exec_is_recorded(engine: PrivateEngine, busybox: str, tmp_path: Path) -> None:
    with recording(engine, busybox, tmp_path / "record", "sleep 600") as (name, recorder):
        done = engine.cli(
            "jaula", "exec", name, "sh", "-c", "echo x > /tmp/exec; /bin/cat /tmp/exec"
        )
        assert done.stdout == "x\n", done.stderr
        assert engine.cli("jaula", "kill", name).returncode == 0
        containers.eventually(lambda: ended(recorder), "the end of the recorder")
        assert not listener(engine, name).exists()
    record = read(tmp_path / "record")
    assert "/tmp/exec" in {e.path for e in of(record, "file", "/bin/cat")}
    assert all("python" not in program.path for program in record.programs.values())


def test_the_container_goes_on_when_the_record_is_ended(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    script = "while true; do /bin/cat /etc/hosts > /tmp/copy; usleep 50000; done"
    with recording(engine, busybox, tmp_path / "record", script) as (name, recorder):
        os.kill(recorder, signal.SIGTERM)
        containers.eventually(lambda: ended(recorder), "the end of the recorder")
        record = read(tmp_path / "record")
        assert record.end is not None
        assert record.end.reason == "signal"
        for _ in range(3):
            done = engine.cli("jaula", "exec", name, "sh", "-c", "rm /tmp/copy; sleep 0.3; ls /tmp")
            assert "copy" in done.stdout, done.stderr
        assert engine.cli("jaula", "kill", name).returncode == 0
        path = listener(engine, name)
        containers.eventually(lambda: not path.exists(), "the end of the responder")


def test_calls_fail_when_the_recorder_is_killed(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    script = (
        "trap go=1 USR1; while [ -z $go ]; do :; done; /bin/true; echo $?; "
        "echo x > /tmp/x; echo end; "
        "while true; do :; done"
    )
    with recording(engine, busybox, tmp_path / "record", script) as (name, recorder):
        os.kill(recorder, signal.SIGKILL)
        containers.eventually(lambda: ended(recorder), "the end of the recorder")
        assert engine.cli("jaula", "kill", "--signal", "USR1", name).returncode == 0
        containers.eventually(
            lambda: "end" in engine.cli("jaula", "logs", name).stdout, "the end of the script"
        )
        logs = engine.cli("jaula", "logs", name)
        assert "not implemented" in logs.stderr
        status, last = logs.stdout.splitlines()
        assert (status != "0", last) == (True, "end")
        assert not Path(f"/proc/{containers.pid(engine, name)}/root/tmp/x").exists()
        refused = engine.cli("jaula", "exec", name, "true")
        assert refused.returncode != 0
        assert "cannot reach the agent" in refused.stderr
        listener(engine, name).unlink()
    assert "no end" in " ".join(record_reader.read(str(tmp_path / "record")).errors)


def test_a_restart_without_a_recorder_is_refused(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with recording(engine, busybox, tmp_path / "record", "true") as (name, recorder):
        containers.eventually(lambda: ended(recorder), "the end of the recorder")
        done = engine.cli("jaula", "start", name)
    assert done.returncode == 1
    assert "cannot reach the agent" in done.stderr


def test_threads_and_short_processes_are_answered(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); /bin/true & done; wait; echo done"
    done = run(engine, busybox, tmp_path / "record", script)
    assert done.stdout == "done\n"
    record = read(tmp_path / "record")
    (true,) = [e for e in of(record, "exec") if program_of(record, e.executed)[0] == "/bin/true"]
    assert true.count == 300


def test_a_hostile_address_is_counted_as_lost(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    """A path that is longer than any, and names that are not UTF-8."""
    script = (
        r"echo > $(printf '/tmp/\377\033[31m'); "
        "l=x; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do l=$l$l; done; cat /tmp/$l; true"
    )
    done = run(engine, busybox, tmp_path / "record", script)
    assert done.returncode == 0, done.stderr
    record = read(tmp_path / "record")
    assert r"/tmp/\xff" in " ".join(e.path for e in of(record, "file"))
    assert record.end is not None
    assert record.end.losses["files"].texts == 1


@pytest.mark.parametrize("option", ["seccomp-listener=relative", "seccomp-listener="])
def test_a_listener_that_is_not_a_path_is_refused(
    engine: PrivateEngine, busybox: str, option: str
) -> None:
    done = engine.cli("jaula", "run", "--rm", "--security-opt", option, busybox, "true")
    assert done.returncode == 125
    assert "invalid --security-opt" in done.stderr
