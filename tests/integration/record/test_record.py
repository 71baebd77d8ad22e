"""A record has what a container did, from the kernel, and nothing of another container."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import containers
from harness.engine import PROJECT, SLOW, PrivateEngine
from jaula.features.record import record_document, record_reader, recorded_cgroup
from jaula.features.record.compare_records import program_of
from jaula.features.record.record_document import Entry
from jaula.features.record.record_reader import Record
from jaula.kernel.poll import readable

SECONDS = 30.0 * SLOW


class Recorder:
    """A ``jaula record`` that is attached."""

    def __init__(self, engine: PrivateEngine, name: str, path: Path, *flags: str) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [
                str(PROJECT / "jaula"), "--host", engine.host, "record", "-o", str(path), *flags,
                name,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=engine.environment(),
        )  # fmt: skip
        assert self.process.stderr is not None
        ready = readable(SECONDS, self.process.stderr.fileno())
        line = self.process.stderr.readline() if ready else "(no output)"
        assert "recording" in line, line + self.process.stderr.read()

    def end(self, number: int = signal.SIGINT) -> Record:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Record:
        output, errors = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0, output + errors
        record = record_reader.read(str(self.path))
        assert record.errors == []
        assert record.head.hash in output
        return record


@contextmanager
def recording(engine: PrivateEngine, name: str, path: Path, *flags: str) -> Iterator[Recorder]:
    recorder = Recorder(engine, name, path, *flags)
    try:
        yield recorder
    finally:
        recorder.process.kill()
        recorder.process.wait()


def execute(engine: PrivateEngine, name: str, script: str) -> subprocess.CompletedProcess[str]:
    return engine.cli("jaula", "exec", name, "sh", "-c", script)


def by(record: Record, path: str) -> list[Entry]:
    """Return the entries of a program."""
    return [
        entry for entry in record.entries.values() if program_of(record, entry.program)[0] == path
    ]


def one(entries: list[Entry], **fields: object) -> Entry:
    """Return the only entry with these fields."""
    found = [
        entry
        for entry in entries
        if all(getattr(entry, name) == value for name, value in fields.items())
    ]
    assert len(found) == 1, (fields, found, entries)
    return found[0]


def paths(record: Record) -> set[str]:
    return {entry.path for entry in record.entries.values() if entry.path}


def test_what_a_container_does_is_recorded_by_program(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        done = execute(
            engine,
            name,
            "echo x > /tmp/known; /bin/cat /tmp/known /tmp/known; /bin/cat /tmp/absent;"
            "/bin/chown 5:5 /tmp/known; /bin/mount -t tmpfs none /mnt;"
            "/bin/nc -w 1 127.0.0.1 4321; /bin/sleep 100 & /bin/usleep 300000; kill -9 $!; wait",
        )
        record = recorder.end()
    assert record.header is not None
    assert record.header.container.name == name
    assert record.header.mechanism == "ebpf-tracepoints"
    assert record.end is not None
    assert record.end.reason == "signal"
    assert record.end.losses == {}, done
    shell, cat = by(record, "/bin/sh"), by(record, "/bin/cat")

    assert one(shell, kind="file", path="/tmp/known").mode == "write,create,truncate"
    assert one(cat, kind="file", path="/tmp/known").mode == "read"
    assert one(cat, kind="file", path="/tmp/known").count == 2
    assert one(cat, kind="file-refused", path="/tmp/absent").errno == "ENOENT"

    executed = {program_of(record, e.executed)[0] for e in shell if e.kind == "exec"}
    assert executed >= {"/bin/cat", "/bin/chown", "/bin/mount", "/bin/nc", "/bin/sleep"}

    assert one(by(record, "/bin/chown"), kind="capability", capability="CAP_CHOWN").syscall in (
        "chown", "fchownat", "lchown",
    )  # fmt: skip
    assert one(by(record, "/bin/mount"), kind="syscall", syscall="mount").errno == "EPERM"
    assert not [e for e in cat if e.syscall == "mount"]
    mount = one(by(record, "/bin/mount"), kind="mount")
    assert (mount.path, mount.filesystem, mount.device) == ("/mnt", "tmpfs", "none")
    assert mount.errno == "EPERM"

    connect = one(by(record, "/bin/nc"), kind="connect", source="kernel")
    assert (connect.family, connect.protocol) == ("inet", "tcp")
    assert (connect.address, connect.port) == ("127.0.0.1", 4321)
    requested = one(by(record, "/bin/nc"), kind="connect", source="process")
    assert (requested.address, requested.errno) == ("127.0.0.1", "ECONNREFUSED")
    socket = one(by(record, "/bin/nc"), kind="socket")
    assert (socket.family, socket.socket_type) == ("inet", "stream")

    assert one(shell, kind="signal", signal="SIGKILL").receiver == "container"


def test_nothing_of_another_container_is_recorded(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        containers.running(engine, busybox) as name,
        containers.running(engine, busybox) as other,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        execute(engine, other, "echo x > /tmp/other; /bin/cat /tmp/other /tmp/other-absent")
        (tmp_path / "of-the-host").write_text("x")
        record = recorder.end()
    assert {entry.kind for entry in record.entries.values()} == {"resource"}


def test_a_process_that_leaves_the_cgroup_stays_recorded(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    script = "while [ ! -e /tmp/go ]; do usleep 20000; done; echo x > /tmp/left; sleep 600"
    with containers.running(engine, busybox, "sh", "-c", script) as name:
        pid = containers.pid(engine, name)
        with recording(engine, name, tmp_path / "record") as recorder:
            assert recorder.path.exists()
            hierarchy, path = recorded_cgroup.find(pid, containers.inspect(engine, name)["Id"])[0][
                1:
            ]
            root = Path("/sys/fs/cgroup", hierarchy)
            assert (root / path.lstrip("/")).is_dir()
            (root / "cgroup.procs").write_text(str(pid))
            execute(engine, name, "touch /tmp/go")
            containers.eventually(
                lambda: execute(engine, name, "test -e /tmp/left").returncode == 0, "the file"
            )
            record = recorder.end()
    assert one(by(record, "/bin/sh"), kind="file", path="/tmp/left").mode == "write,create,truncate"


def test_the_end_of_the_container_ends_the_record(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        assert engine.cli("jaula", "kill", name).returncode == 0
        record = recorder.wait()
    assert record.end is not None
    assert record.end.reason == "container exited"


def test_a_record_ends_after_its_time(engine: PrivateEngine, busybox: str, tmp_path: Path) -> None:
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record", "--for", "1s") as recorder,
    ):
        record = recorder.wait()
    assert record.end is not None
    assert record.end.reason == "duration"
    assert 1_000_000 <= record.end.duration < 10_000_000


def test_a_flood_is_bounded_and_what_is_dropped_is_counted(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    flood = "i=0; while [ $i -lt 100000 ]; do : > /t/$i; i=$((i+1)); done; /bin/cat /etc/passwd"
    with (
        containers.running(
            engine, busybox, flags=("--tmpfs", "/t:size=64m,nr_inodes=200000")
        ) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        done = execute(engine, name, flood)
        assert done.returncode == 0, done.stderr
        record = recorder.end()
    shell = by(record, "/bin/sh")
    opened = [e for e in shell if e.kind == "file" and (e.path.startswith("/t/") or e.lost_text)]
    assert 30_000 < len(opened) <= 65_536
    assert record.end is not None
    lost = record.end.losses["files"]
    assert lost.occurrences > 30_000
    other_lost = 1  # /etc/passwd, since the table is full
    assert sum(e.count for e in opened) + lost.occurrences - other_lost == 100_000
    assert one(shell, kind="syscall", syscall="openat", errno="").count >= 100_000
    assert one(by(record, "/bin/cat"), kind="syscall", syscall="openat", errno="").count == 1
    assert recorder.path.stat().st_size < 64 << 20


def test_every_one_of_many_processes_is_counted(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        execute(engine, name, "i=0; while [ $i -lt 3000 ]; do /bin/true; i=$((i+1)); done")
        record = recorder.end()
    executed = {
        program_of(record, e.executed)[0]: e.count
        for e in by(record, "/bin/sh")
        if e.kind == "exec"
    }
    assert executed == {"/bin/true": 3000}
    assert record.end is not None
    assert record.end.losses == {}


def test_a_killed_recorder_leaves_a_record_without_an_end(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        execute(engine, name, "echo > /tmp/known")
        containers.eventually(lambda: b"/tmp/known" in recorder.path.read_bytes(), "the entry")
        recorder.process.kill()
        recorder.process.wait()
        # Its programs are gone with it, and another record of the container is possible.
        with recording(engine, name, tmp_path / "next") as after:
            assert after.end().end is not None
    record = record_reader.read(str(tmp_path / "record"))
    assert "/tmp/known" in paths(record)
    assert len(record.errors) == 1
    assert "no end" in record.errors[0]


def test_hostile_names_are_recorded_and_printed_as_escapes(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    script = (
        "cd /tmp; n=$(printf 'a\\033[2J\\nx\\377\\134'); echo > \"$n\";"
        'cp /bin/busybox "./$n-p"; "./$n-p" true;'
        "d=$(printf '%0250d' 0);"
        "mk() { cd /tmp; i=0; while [ $i -lt 15 ]; do mkdir $1$d && cd $1$d; i=$((i+1)); done; };"
        "mk b; B=$PWD; mk a; mv /tmp/a$d $B/; echo > deep"
    )
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        engine.cli("jaula", "exec", name, "sh", "-c", script, errors="replace")
        record = recorder.end()
    hostile = "/tmp/a\x1b[2J\nx\\xff\\\\"
    assert hostile in paths(record)
    assert record_document.bytes_of(hostile) == b"/tmp/a\x1b[2J\nx\xff\\"
    deep = [e for e in record.entries.values() if e.path.endswith("/deep")]
    assert deep
    assert deep[0].truncated
    assert len(deep[0].path) > 3500
    summary = engine.cli("jaula", "record", "show", str(recorder.path))
    assert summary.returncode == 0, summary.stderr
    assert "\x1b" not in summary.stdout
    assert len(summary.stdout.splitlines()) < 60
    shown = engine.cli("jaula", "record", "show", "--all", str(recorder.path))
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert "/tmp/a\\x1b[2J\\nx\\xff" in shown.stdout


def test_a_record_needs_a_running_container_and_a_new_file(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    done = engine.cli("jaula", "record", "absent-container")
    assert (done.returncode, "No such container" in done.stderr) == (1, True)
    existing = tmp_path / "existing"
    existing.write_text("x")
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "record", "-o", str(existing), name)
        assert done.returncode == 1
        assert "never overwritten" in done.stderr
        assert existing.read_text() == "x"
        assert engine.cli("jaula", "kill", name).returncode == 0
        assert engine.cli("jaula", "wait", name).returncode == 0
        done = engine.cli("jaula", "record", "-o", str(tmp_path / "new"), name)
        assert done.returncode == 1
        assert "is not running" in done.stderr
        assert not (tmp_path / "new").exists()


def test_records_are_compared_and_verified(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    files = []
    for word in ("one", "two"):
        with (
            containers.running(engine, busybox) as name,
            recording(engine, name, tmp_path / word) as recorder,
        ):
            execute(engine, name, f"/bin/cat /etc/passwd; echo > /tmp/{word}")
            recorder.end()
            files.append(str(recorder.path))
    done = engine.cli("jaula", "record", "diff", *files)
    assert done.returncode == 1, done.stderr
    changed = [line for line in done.stdout.splitlines() if " file " in line]
    assert changed == [
        "- file /bin/sh /tmp/one write,create,truncate",
        "+ file /bin/sh /tmp/two write,create,truncate",
    ]
    assert engine.cli("jaula", "record", "diff", files[0], files[0]).returncode == 0
    done = engine.cli("jaula", "record", "verify", files[0])
    assert done.returncode == 0, done.stdout
    data = Path(files[0]).read_bytes()
    Path(files[0]).write_bytes(data.replace(b"/tmp/one", b"/tmp/ten"))
    done = engine.cli("jaula", "record", "verify", files[0])
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    lines = engine.cli("jaula", "record", "show", "--format", "json", files[1]).stdout.splitlines()
    shown = [json.loads(line) for line in lines]
    assert {"/tmp/two"} == {e["path"] for e in shown if e.get("path", "").startswith("/tmp/")}
