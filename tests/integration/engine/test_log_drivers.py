"""Log drivers of real containers: what arrives, and what `logs` says."""

from __future__ import annotations

import os
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
            refused = engine.cli(program, "logs", name)
            assert "configured logging driver does not support reading" in refused.stderr
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


def test_a_journal_that_is_not_there_is_told(engine: PrivateEngine, busybox: str) -> None:
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
def test_what_no_driver_has_is_refused_at_create(
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
def test_a_log_that_hangs_holds_a_container_up_unless_it_may_not(
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


def test_a_log_that_may_not_block_is_complete_when_the_container_ends(
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
