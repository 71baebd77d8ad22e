"""A hostile container: what it floods is bounded and counted, and it forges no entry."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from integration.record.test_kinds import directory, record, select
from integration.record.test_record import by, execute, recording
from jaula.features.record import record_reader
from jaula.features.record.compare_records import program_of
from jaula.features.record.record_reader import Record
from jaula.features.record.recorded_cgroup import Cgroup

__all__ = ("directory",)  # a fixture


@pytest.fixture
def sink() -> Iterator[str]:
    """A UDP socket at port 53 of a loopback address of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.53.9.1", 53))
        yield "127.53.9.1"


def test_a_flood_of_dns_names_is_bounded_and_counted(
    directory: tuple[Cgroup, Path], tmp_path: Path, sink: str
) -> None:
    script = r"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(20000):
    s.sendto(query(b"%d.%s" % (i, b"x" * 60)), (sys.argv[1], 53))
for length in (0, 1, 11, 12, 13, 16, 17, 200, 511, 4000):
    s.sendto(os.urandom(2) + b"\1\0\0\1" + b"\x3f" * length, (sys.argv[1], 53))
s.sendto(query(b".".join([b"y" * 63] * 4)), (sys.argv[1], 53))
t = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
t.connect_ex((sys.argv[1], 4321))
"""
    entries = record(directory, tmp_path, script, sink)
    asked = select(entries, "dns")
    assert len(asked) == 8192
    assert all(entry.count == 1 for entry in asked if not entry.malformed)
    size = (tmp_path / "script.record").stat().st_size
    assert size < 8 << 20
    # Another kind is not hidden by the flood.
    assert select(entries, "connect", source="kernel", port=4321)


def test_one_of_many_messages_with_a_long_name_is_recorded_whole(
    directory: tuple[Cgroup, Path], tmp_path: Path, sink: str
) -> None:
    script = r"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(query(b".".join([b"y" * 63] * 3 + [b"z" * 61])), (sys.argv[1], 53))
s.sendto(query(b"\n\x1b[2J\x00\xff"), (sys.argv[1], 53))
"""
    entries = record(directory, tmp_path, script, sink)
    names = {entry.name for entry in select(entries, "dns")}
    assert names == {".".join(["y" * 63] * 3 + ["z" * 61]), "\n\x1b[2J\0\\xff"}


def connect_from_many_addresses(port: int) -> None:
    """Connect 9,000 times to a server, from another loopback address each time."""
    for number in range(9000):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.bind((f"127.{20 + number // 250}.{number % 250}.1", 0))
            for _ in range(500):
                try:
                    client.connect(("127.0.0.1", port))
                    break
                except ConnectionRefusedError:  # the server does not listen yet
                    time.sleep(0.02)


def test_many_peers_of_a_server_do_not_hide_its_own_connections(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    script = r"""
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(4096)
for i in range(9000):
    s.accept()[0].close()
c = socket.socket(); c.connect_ex(("127.0.0.1", 4321))
"""
    clients = threading.Thread(target=connect_from_many_addresses, args=(port,))
    clients.start()
    entries = record(directory, tmp_path, script, str(port))
    clients.join()
    assert len(select(entries, "accept")) == 8192
    assert select(entries, "connect", source="kernel", port=4321)


@pytest.mark.parametrize("number", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_processes_are_counted_and_bounded(
    engine: PrivateEngine, busybox: str, tmp_path: Path, number: int
) -> None:
    """By count, not by time: what lasts an hour is as many events as this or fewer."""
    loop = f"i=0; while [ $i -lt {number // 2} ]; do (:); i=$((i+1)); done"
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        done = engine.cli(
            "jaula", "exec", name, "sh", "-c", f"({loop}) & ({loop}); wait", timeout=500
        )
        assert done.returncode == 0, done.stderr
        memory = Path(f"/proc/{recorder.process.pid}/status").read_text()
        record_of_it = recorder.end()
    resident = int(memory.split("VmRSS:")[1].split()[0])
    assert resident < 150_000  # KiB
    forks = [
        entry
        for entry in by(record_of_it, "/bin/sh")
        if (entry.kind, entry.errno) == ("syscall", "")
        and entry.syscall in ("clone", "fork", "vfork", "clone3")
    ]
    # Each fork returns twice: in the parent and in the child.
    assert sum(entry.count for entry in forks) >= 2 * number
    assert recorder.path.stat().st_size < 1 << 20
    assert record_of_it.end is not None
    assert record_of_it.end.losses == {}


def test_the_clock_of_the_host_does_not_change_times(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    """The record has no clock that can be set but the one of its header."""
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        execute(engine, name, "date -s '2001-01-01 00:00:00'; : > /tmp/first; usleep 300000")
        execute(engine, name, "date -s '2040-01-01 00:00:00'; : > /tmp/second")
        after = time.clock_gettime(time.CLOCK_BOOTTIME)
        record_of_it = recorder.end()
    times = {
        entry.path: entry.first for entry in by(record_of_it, "/bin/sh") if entry.kind == "file"
    }
    passed = times["/tmp/second"] - times["/tmp/first"]
    assert 300_000 <= passed <= (after - before) * 1e6
    assert settings_refused(record_of_it)


def settings_refused(record_of_it: Record) -> bool:
    """Return whether the calls that set the clock were refused, as the record has it."""
    calls = [
        entry
        for entry in record_of_it.entries.values()
        if entry.syscall in ("clock_settime", "settimeofday") and entry.kind == "syscall"
    ]
    return bool(calls) and all(
        entry.errno == "EPERM" and entry.layer in ("seccomp", "capability") for entry in calls
    )


def test_an_id_of_another_container_in_a_path_is_no_member(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    """Names that a container chooses cannot bring another one into its record."""
    with containers.running(engine, busybox) as other:
        done = engine.cli(
            "jaula", "run", "--rm", f"--record={tmp_path}/r", busybox, "sh", "-c",
            "cp /bin/busybox /tmp/$(hostname); /tmp/$(hostname) true; echo $(hostname)",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        execute(engine, other, f"mkdir /tmp/{done.stdout.strip()}; : > /tmp/other")
    found = record_reader.read(f"{tmp_path}/r")
    assert "/tmp/other" not in {entry.path for entry in found.entries.values()}
    programs = {
        program_of(found, entry.executed)[0]
        for entry in found.entries.values()
        if entry.kind == "exec"
    }
    assert f"/tmp/{done.stdout.strip()}" in programs


def test_an_export_of_hostile_names_is_one_line_for_each_entry(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        script = 'cd /tmp; n=$(printf \'a\\n{"kind":"exec"}\\033[2J\\377\'); echo > "$n"'
        engine.cli("jaula", "exec", name, "sh", "-c", script, errors="replace")
        entries = len(recorder.end().entries)
    for output_format in ("jsonl", "ocsf"):
        done = subprocess.run(
            ["./jaula", "record", "export", "--format", output_format, str(recorder.path)],
            capture_output=True, check=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert len(done.stdout.splitlines()) == entries
        assert b"\x1b" not in done.stdout
        assert b"\xff" not in done.stdout
