"""Log drivers of real containers: what arrives, and what `logs` says."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine


@pytest.mark.parametrize("program", ["docker", "jaula"])
def test_syslog_gets_the_output_under_the_tag(
    engine: PrivateEngine, busybox: str, program: str
) -> None:
    path = engine.run / "syslog.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        log.settimeout(10)
        flags = (
            *("--log-driver", "syslog", "--log-opt", f"syslog-address=unixgram://{path}"),
            *("--log-opt", "tag={{.Name}}", "--log-opt", "mode=non-blocking"),
        )
        name = containers.unique("sys")
        done = engine.cli(
            program, "run", "--name", name, *flags, busybox, "sh", "-c", "echo out; echo err >&2"
        )
        try:
            assert done.returncode == 0, done.stderr
            lines = sorted(log.recv(4096).decode() for _ in range(2))
            assert lines[0].startswith("<27>")
            assert f"{name}[" in lines[0]
            assert lines[0].endswith(": err")
            assert lines[1].endswith(": out")
            shown = engine.cli(program, "logs", name)  # from the engine's own copy
            assert (shown.stdout, shown.stderr) == ("out\n", "err\n")
        finally:
            engine.request("DELETE", f"/containers/{name}?force=1")
    path.unlink()


def test_local_is_kept_and_read(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--log-driver", "local", "--log-opt", "max-size=1m")
    with containers.running(
        engine, busybox, "sh", "-c", "echo kept; sleep 600", flags=flags
    ) as name:
        containers.eventually(
            lambda: engine.cli("docker", "logs", name).stdout == "kept\n", "the line"
        )
        assert containers.inspect(engine, name)["HostConfig"]["LogConfig"]["Type"] == "local"


def test_a_missing_journal_is_reported(engine: PrivateEngine, busybox: str) -> None:
    if Path("/run/systemd/journal/socket").exists():
        pytest.skip("this host has a journal")
    done = engine.cli("jaula", "run", "--rm", "--log-driver", "journald", busybox, "true")
    assert done.returncode == 125
    assert "Traceback" not in done.stderr
    assert "No such file or directory" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--log-driver", "syslog", "--log-opt", "tag={{.Secret}}"),
        ("--log-driver", "syslog", "--log-opt", "container-id=x"),
        ("--log-driver", "journald", "--log-opt", "mode=blocking"),
        ("--log-driver", "gelf"),
    ],
)
def test_unknown_log_options_are_refused_at_create(
    engine: PrivateEngine, busybox: str, words: tuple[str, ...]
) -> None:
    done = engine.cli("jaula", "create", *words, busybox, "true")
    assert done.returncode == 1
    assert done.stdout == ""


@pytest.mark.parametrize("program", ["docker", "jaula"])
def test_details_are_the_labels_and_variables_that_were_chosen(
    engine: PrivateEngine, busybox: str, program: str
) -> None:
    flags = (
        *("-l", "app=a b", "-l", "other=x", "-e", "TIER=1", "-e", "SECRET=s"),
        *("--log-opt", "labels=app", "--log-opt", "env-regex=^TI", "--log-opt", "tag={{.Name}}"),
    )
    command = ("sh", "-c", "echo one; echo two; sleep 600")
    with containers.running(engine, busybox, *command, flags=flags) as name:
        expected = "".join(f"TIER=1,app=a+b,tag={name} {word}\n" for word in ("one", "two"))
        containers.eventually(
            lambda: engine.cli(program, "logs", "--details", name).stdout == expected, expected
        )
        assert engine.cli(program, "logs", name).stdout == "one\ntwo\n"
        record = Path(containers.inspect(engine, name)["LogPath"]).read_text().splitlines()[0]
        assert f'"attrs":{{"TIER":"1","app":"a b","tag":"{name}"}}' in record
        assert "SECRET" not in record
    with containers.running(engine, busybox, *command) as name:
        containers.eventually(
            lambda: engine.cli(program, "logs", "--details", name).stdout == " one\n two\n",
            "lines without attributes",
        )


@pytest.mark.parametrize("mode", ["blocking", "non-blocking"])
def test_a_hanging_log_blocks_the_container_unless_non_blocking(
    engine: PrivateEngine, busybox: str, mode: str
) -> None:
    """The log file is made a fifo that nobody reads, as a disk that does not answer."""
    name = containers.unique("log")
    script = "yes 0123456789 | head -c 500000; sleep 0.5; echo done >&2"
    flags = ("--log-opt", f"mode={mode}", "--log-opt", "max-size=-1")
    words = ("create", "--name", name, *flags, busybox, "sh", "-c", script)
    assert engine.cli("docker", *words).returncode == 0
    path = Path(containers.inspect(engine, name)["LogPath"])
    os.mkfifo(path)
    try:
        engine.request("POST", f"/containers/{name}/start")
        if mode == "non-blocking":
            assert engine.cli("docker", "wait", name, timeout=30).stdout == "0\n"
        else:
            time.sleep(2)
            assert containers.inspect(engine, name)["State"]["Running"]
            with path.open("rb") as reader:  # the disk is back
                while b"done" not in reader.read1(1 << 16):
                    continue
            assert engine.cli("docker", "wait", name, timeout=30).stdout == "0\n"
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_a_non_blocking_log_is_complete_when_the_container_exits(
    engine: PrivateEngine, busybox: str
) -> None:
    name = containers.unique("log")
    flags = ("--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=4m")
    script = "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; printf end"
    done = engine.cli("docker", "run", "--name", name, *flags, busybox, "sh", "-c", script)
    try:
        assert engine.cli("docker", "logs", name).stdout == done.stdout
        assert done.stdout.endswith("1999\nend")
        config = containers.inspect(engine, name)["HostConfig"]["LogConfig"]["Config"]
        assert (config["mode"], config["max-buffer-size"]) == ("non-blocking", "4m")
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_logs_since_the_start_are_all_of_this_run(engine: PrivateEngine, busybox: str) -> None:
    """Clients ask for them by the time that inspect tells, and go on by a line's own time."""
    name = containers.unique("log")
    words = ("run", "--name", name, busybox, "sh", "-c", "echo one; echo two; echo three")
    assert engine.cli("docker", *words).returncode == 0
    try:
        engine.cli("docker", "start", "-a", name)
        assert len(engine.cli("docker", "logs", name).stdout.split()) == 6
        started = containers.inspect(engine, name)["State"]["StartedAt"]
        told = engine.cli("docker", "logs", "-t", "--since", started, name).stdout.splitlines()
        assert [line.split()[1] for line in told] == ["one", "two", "three"]
        at = told[-1].split()[0]
        assert "three" in engine.cli("docker", "logs", "--since", at, name).stdout
        assert engine.cli("docker", "logs", "--until", at, name).stdout.split()[-1] == "three"
        later = f"{at[:-2]}{int(at[-2]) + 1}Z" if at[-2] != "9" else at
        assert later == at or engine.cli("docker", "logs", "--since", later, name).stdout == ""
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


PACKING = (*("--log-opt", "compress=true", "--log-opt", "max-size=20k", "--log-opt", "max-file=3"),)
COUNTING = "i=0; while [ $i -lt 1500 ]; do echo line $i; i=$((i+1)); done"


def log_of(engine: PrivateEngine, name: str) -> Path:
    """``inspect`` tells that of json-file only, as Docker does."""
    ident = containers.inspect(engine, name)["Id"]
    return engine.root / "lib" / "containers" / ident / f"{ident}-json.log"


def shim_of(engine: PrivateEngine, name: str) -> int:
    return containers.shim(containers.pid(engine, name))


def names_beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.glob(f"{path.name}*"))


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotated_files_are_compressed_and_readable(
    engine: PrivateEngine, busybox: str, driver: str
) -> None:
    flags = ("--log-driver", driver, *PACKING)
    with containers.running(
        engine, busybox, "sh", "-c", f"{COUNTING}; sleep 600", flags=flags
    ) as name:
        path = log_of(engine, name)
        expected = [path.name, f"{path.name}.1.gz", f"{path.name}.2.gz"]
        containers.eventually(lambda: names_beside(path) == expected, "the packed files")
        containers.eventually(
            lambda: engine.cli("docker", "logs", "--tail", "1", name).stdout == "line 1499\n",
            "the last line",
        )
        shown = engine.cli("docker", "logs", name).stdout.splitlines()
        assert shown == [f"line {number}" for number in range(1500 - len(shown), 1500)]
        assert 300 < len(shown) < 1000
        for program in ("docker", "jaula"):
            tail = engine.cli(program, "logs", "--tail", "5", name).stdout
            assert tail == "".join(f"line {number}\n" for number in range(1495, 1500))
            tail = engine.cli(program, "logs", "--tail", "400", name).stdout
            assert tail.splitlines() == shown[-400:]
        stamped = engine.cli("docker", "logs", "--timestamps", name).stdout.splitlines()
        since = stamped[50].split()[0]
        found = engine.cli("docker", "logs", "--since", since, name).stdout.splitlines()
        first = next(n for n, line in enumerate(stamped) if line.startswith(since))
        assert found == shown[first:]
        shim = shim_of(engine, name)
        assert not Path(f"/proc/{shim}/task/{shim}/children").read_text().split()[1:], (
            "what packed is not reaped"
        )
    assert not path.parent.exists(), "packed files are left"


def test_who_follows_sees_every_line_while_files_are_packed(
    engine: PrivateEngine, busybox: str
) -> None:
    name = containers.unique("log")
    script = f"{COUNTING} | while read line; do echo $line; done; sleep 1; echo end"
    flags = ("--log-opt", "compress=true", "--log-opt", "max-size=20k", "--log-opt", "max-file=9")
    try:
        words = ("run", "-d", "--name", name, *flags, busybox, "sh", "-c", script)
        assert engine.cli("docker", *words).returncode == 0
        shown = engine.cli("docker", "logs", "-f", name, timeout=60).stdout.splitlines()
        assert shown == [*(f"line {number}" for number in range(1500)), "end"]
        again = engine.cli("docker", "logs", name).stdout.splitlines()
        assert again == shown
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_a_shim_that_is_killed_while_a_file_is_packed_leaves_the_log_whole(
    engine: PrivateEngine, busybox: str
) -> None:
    """Output without an end is packed all the time; the container starts again on its log."""
    name = containers.unique("log")
    flags = ("--log-opt", "compress=true", "--log-opt", "max-size=2m", "--log-opt", "max-file=4")
    script = "i=0; while :; do echo $i; i=$((i+1)); done"
    words = ("run", "-d", "--name", name, *flags, busybox, "sh", "-c", script)
    try:
        assert engine.cli("docker", *words).returncode == 0
        path = log_of(engine, name)
        for number in range(4):
            containers.eventually(lambda: f"{path.name}.1.gz" in names_beside(path), "packed")
            time.sleep(0.2 + number * 0.07)
            os.kill(shim_of(engine, name), signal.SIGKILL)
            containers.eventually(
                lambda: not containers.inspect(engine, name)["State"]["Running"], "its end"
            )
            shown = engine.cli("docker", "logs", name, timeout=60).stdout.splitlines()
            steps = {int(b) - int(a) for a, b in itertools.pairwise(shown) if b != "0"}
            assert steps == {1}, "a record is missing, or there twice"
            assert engine.cli("docker", "start", name).returncode == 0
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compress=true", "max-file=1"), "compress cannot be true when max-file is less than 2"),
        (("compress=true", "max-size=-1"), "or max-size is not set"),
        (("compress=maybe",), "invalid boolean value for compress"),
    ],
)
def test_invalid_compression_is_refused_at_create(
    engine: PrivateEngine, busybox: str, words: tuple[str, ...], said: str
) -> None:
    flags = [part for word in words for part in ("--log-opt", word)]
    done = engine.cli("docker", "create", *flags, busybox, "true")
    assert done.returncode != 0
    assert said in done.stderr
