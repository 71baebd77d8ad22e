"""Each mechanism records what its header promises, of the same script."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PROJECT, SLOW, PrivateEngine
from jaula.features.record import record_reader
from jaula.features.record.compare_records import program_of
from jaula.features.record.record_document import Entry
from jaula.features.record.record_reader import Record

SCRIPT = (
    "echo x > /tmp/known; /bin/cat /tmp/known; "
    r"printf '#!/bin/cat\nx\n' > /tmp/script; chmod +x /tmp/script; /tmp/script; "
    "/bin/sleep 5 | /bin/nc -l -p 4321 & usleep 1200000; "
    "/bin/sleep 3 | /bin/nc 127.0.0.1 4321 & usleep 2500000; kill $!; wait"
)


def recorded(engine: PrivateEngine, name: str, path: Path, mechanism: str, script: str) -> Record:
    words = [str(PROJECT / "jaula"), "--host", engine.host, "record", "--mechanism", mechanism,
             "-o", str(path), name]  # fmt: skip
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=engine.environment(), text=True) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            assert "recording" in process.stderr.readline()
            assert engine.cli("jaula", "exec", name, "sh", "-c", script).returncode == 0
            process.terminate()
            output, errors = process.communicate(timeout=30 * SLOW)
            assert process.returncode == 0, output + errors
        finally:
            process.kill()
    record = record_reader.read(str(path))
    assert record.errors == []
    return record


def entries(record: Record, kind: str, program: str = "") -> list[Entry]:
    return [
        entry
        for entry in record.entries.values()
        if entry.kind == kind and (not program or program_of(record, entry.program)[0] == program)
    ]


def executed(record: Record) -> set[tuple[str, str]]:
    return {program_of(record, entry.executed) for entry in entries(record, "exec")}


@pytest.mark.parametrize("mechanism", ["ebpf", "fanotify", "proc"])
def test_programs_and_addresses_are_recorded_by_each_mechanism(
    engine: PrivateEngine, busybox: str, tmp_path: Path, mechanism: str
) -> None:
    with containers.running(engine, busybox) as name:
        record = recorded(engine, name, tmp_path / "record", mechanism, SCRIPT)
    assert record.header is not None
    assert record.header.mechanism.startswith(mechanism)
    assert record.end is not None
    assert record.end.losses == {}
    assert {"/bin/nc", "/bin/sleep"} <= {path for path, _ in executed(record)}
    (listening,) = {(e.address, e.port, e.source) for e in entries(record, "listen", "/bin/nc")}
    assert listening[1:] == (4321, "kernel")
    connects = [e for e in entries(record, "connect", "/bin/nc") if e.source == "kernel"]
    assert {(e.family, e.protocol, e.address, e.port) for e in connects} == {
        ("inet", "tcp", "127.0.0.1", 4321)
    }
    assert entries(record, "resource")
    assert bool(record.header.not_recorded) == (mechanism != "ebpf")


def test_fanotify_records_files_and_each_execution(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with containers.running(engine, busybox) as name:
        record = recorded(engine, name, tmp_path / "record", "fanotify", SCRIPT)
    assert ("/bin/cat", "") in executed(record)
    assert ("/bin/cat", "/tmp/script") in executed(record)
    known = {(e.path, e.mode) for e in entries(record, "file", "/bin/sh")}
    assert {("/tmp/known", ""), ("/tmp/known", "write")} <= known
    assert "/tmp/known" in {e.path for e in entries(record, "file", "/bin/cat")}
    assert all("python" not in program.path for program in record.programs.values())


def test_a_flood_of_files_is_bounded_and_counted(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    # A tmpfs: the flood is ten times faster than on an overlay. The kernel merges events of a file
    # that are in its queue, so each file is written once.
    script = "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo > /flood/f$i; done"
    with containers.running(engine, busybox, flags=("--tmpfs", "/flood")) as name:
        record = recorded(engine, name, tmp_path / "record", "fanotify", script)
    assert record.end is not None
    written = [e for e in entries(record, "file", "/bin/sh") if e.mode == "write"]
    assert written
    missing = 4000 - sum(entry.count for entry in written)
    assert missing == 0 or "files" in record.end.losses


def test_fanotify_records_the_files_of_a_volume_and_of_a_later_mount(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    flags = ("-v", f"{volume}:/data", "--cap-add", "SYS_ADMIN")
    script = (
        "echo x > /data/x; mkdir /mnt; mount -t tmpfs none /mnt; usleep 1500000; "
        "echo x > /mnt/later; usleep 500000; umount /mnt"
    )
    with containers.running(engine, busybox, flags=flags) as name:
        record = recorded(engine, name, tmp_path / "record", "fanotify", script)
    assert {"/data/x", "/mnt/later"} <= {e.path for e in entries(record, "file", "/bin/sh")}


def test_another_container_is_not_recorded(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with (
        containers.running(engine, busybox) as name,
        containers.running(engine, busybox) as other,
    ):
        engine.cli("jaula", "exec", "-d", other, "sh", "-c", "sleep 1; echo > /tmp/other")
        record = recorded(engine, name, tmp_path / "record", "fanotify", "usleep 1500000")
    assert "/tmp/other" not in {entry.path for entry in record.entries.values()}


def test_an_unknown_mechanism_is_refused(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "record", "--mechanism", "ptrace", name)
    assert done.returncode == 125
    assert "must be one of auto, ebpf" in done.stderr


@pytest.mark.parametrize("mechanism", ["fanotify", "proc"])
def test_drift_without_ebpf(
    engine: PrivateEngine, busybox: str, tmp_path: Path, mechanism: str
) -> None:
    words = [str(PROJECT / "jaula"), "--host", engine.host, "record", "--drift", "--mechanism",
             mechanism]  # fmt: skip
    with (
        containers.running(engine, busybox) as name,
        subprocess.Popen([*words, name], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                         env=engine.environment(), text=True) as process,
    ):  # fmt: skip
        try:
            assert process.stderr is not None
            assert mechanism in process.stderr.readline()
            script = "cp /bin/busybox /tmp/true; /tmp/true; sleep 1"
            engine.cli("jaula", "exec", name, "sh", "-c", script)
            process.terminate()
            output, errors = process.communicate(timeout=30 * SLOW)
        finally:
            process.kill()
    assert process.returncode == 1, output + errors
    assert "/tmp/true" in output


def _without_btf(engine: PrivateEngine, *words: str) -> subprocess.Popen[str]:
    """Run a command where the kernel seems to have no BTF."""
    script = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(PROJECT / "jaula"),
         "--host", engine.host, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=engine.environment(), text=True,
    )  # fmt: skip


@pytest.mark.needs("/sys/kernel/btf/vmlinux")
def test_a_record_without_btf_says_why_it_sees_less(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with containers.running(engine, busybox) as name:
        with _without_btf(engine, "record", "--for", "1s", "-o", str(tmp_path / "r"), name) as each:
            output, errors = each.communicate(timeout=60 * SLOW)
        assert each.returncode == 0, output + errors
    assert "not recorded by ebpf: this kernel has no /sys/kernel/btf/vmlinux" in errors
    record = record_reader.read(str(tmp_path / "r"))
    assert record.header is not None
    assert record.header.mechanism == "fanotify"


@pytest.mark.needs("/sys/kernel/btf/vmlinux")
def test_a_container_is_recorded_from_its_start_without_btf(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    words = ("run", "--rm", f"--record={tmp_path / 'r'}", busybox, "cat", "/etc/hostname")
    with _without_btf(engine, *words) as each:
        output, errors = each.communicate(timeout=60 * SLOW)
    assert each.returncode == 0, output + errors
    record = record_reader.read(str(tmp_path / "r"))
    assert record.header is not None
    assert record.header.mechanism == "seccomp"
    assert "/bin/cat" in {path for path, _ in executed(record)}


@pytest.mark.needs("/sys/kernel/btf/vmlinux")
def test_a_refused_mechanism_names_another_one(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name = containers.unique()
    words = ("run", "--name", name, "--record-mechanism", "ebpf", f"--record={tmp_path / 'r'}")
    with _without_btf(engine, *words, busybox, "true") as each:
        _, errors = each.communicate(timeout=60 * SLOW)
    assert each.returncode == 125
    assert errors.startswith("jaula: this kernel has no /sys/kernel/btf/vmlinux"), errors
    assert "--record-mechanism=seccomp" in errors
    assert not (tmp_path / "r").exists()
    assert engine.request("GET", f"/containers/{name}/json").status == 404
