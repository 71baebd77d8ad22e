"""Attaching to a real container: streams, signals, the terminal, exit statuses."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.engine import PROJECT, PrivateEngine
from harness.terminal import Terminal

SECONDS = 20.0


def words(engine: PrivateEngine, *rest: str) -> list[str]:
    return [str(PROJECT / "jaula"), "--host", engine.host, *rest]


def client(engine: PrivateEngine, *rest: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words(engine, *rest),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def name(engine: PrivateEngine) -> Iterator[str]:
    """Return a name for one container, removed after the test."""
    chosen = f"jlt-{os.getpid()}-{time.monotonic_ns()}"
    yield chosen
    engine.cli("jaula", "rm", "-f", chosen)


TRAP = "trap 'echo got-int; exit 3' INT; trap 'echo got-usr; exit 4' USR1; echo ready; {}"
LOOP = "while :; do sleep 0.1; done"


@pytest.mark.parametrize(
    ("number", "status", "output"),
    [(signal.SIGINT, 3, b"got-int\n"), (signal.SIGUSR1, 4, b"got-usr\n")],
)
def test_a_signal_is_forwarded_to_the_container(
    engine: PrivateEngine, busybox: str, name: str, number: int, status: int, output: bytes
) -> None:
    process = client(engine, "run", "--name", name, busybox, "sh", "-c", TRAP.format(LOOP))
    assert first_line(process) == b"ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=SECONDS)
    assert out == output
    assert process.returncode == status


def test_without_sig_proxy_a_signal_ends_the_client_only(
    engine: PrivateEngine, busybox: str, name: str
) -> None:
    script = TRAP.format(LOOP)
    process = client(
        engine, "run", "--sig-proxy=false", "--name", name, busybox, "sh", "-c", script
    )
    assert first_line(process) == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
    running = engine.cli("jaula", "inspect", "-f", "{{.State.Running}}", name)
    assert running.stdout == "true\n"


@pytest.mark.parametrize(
    "command", [["events"], ["logs", "-f", "{}"], ["stats"], ["wait", "{}"], ["cgtop", "-b", "-n9"]]
)
def test_an_interrupt_ends_a_command_that_waits_with_130(
    engine: PrivateEngine, busybox: str, name: str, command: list[str]
) -> None:
    made = engine.cli("jaula", "run", "-d", "--name", name, busybox, "sleep", "60")
    assert made.returncode == 0, made.stderr
    process = client(engine, *(word.format(name) for word in command))
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert error == b""


def test_input_larger_than_any_buffer_is_forwarded(engine: PrivateEngine, busybox: str) -> None:
    data = os.urandom(1 << 16) * 64
    done = subprocess.run(
        words(engine, "run", "-i", "--rm", busybox, "md5sum"),
        input=data,
        capture_output=True,
        timeout=60,
        check=True,
    )
    expected = subprocess.run(["md5sum"], input=data, capture_output=True, check=True)
    assert done.stdout == expected.stdout


def test_stdout_and_stderr_are_separate_and_complete(engine: PrivateEngine, busybox: str) -> None:
    script = "dd if=/dev/zero bs=64k count=64 2>/dev/null; echo problem >&2; exit 9"
    done = subprocess.run(
        words(engine, "run", "--rm", busybox, "sh", "-c", script),
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert len(done.stdout) == 64 << 16
    assert done.stderr == b"problem\n"
    assert done.returncode == 9


def test_exec_has_streams_environment_and_a_status(
    engine: PrivateEngine, busybox: str, name: str
) -> None:
    made = engine.cli("jaula", "run", "-d", "--name", name, busybox, "sleep", "60")
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        words(engine, "exec", "-i", "-e", "A=b", "-w", "/tmp", name,
              "sh", "-c", "cat; pwd; echo $A >&2; exit 5"),
        input=b"in\n", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == (b"in\n/tmp\n", b"b\n", 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_the_terminal_is_restored_when_a_signal_ends_the_client(
    engine: PrivateEngine, busybox: str, name: str, number: int
) -> None:
    command = words(engine, "run", "-it", "--name", name, busybox, "sh", "-c", "echo on; sleep 60")
    default = ("env", "--default-signal")  # nohup(1) ignores SIGHUP, and its children inherit that
    with Terminal((*default, *command), dict(os.environ)) as terminal:
        before = termios.tcgetattr(terminal.master)
        terminal.expect("on")
        assert termios.tcgetattr(terminal.master)[3] != before[3], "not raw while attached"
        terminal.process.send_signal(number)
        assert terminal.process.wait(SECONDS) == 128 + number
        assert termios.tcgetattr(terminal.master) == before


def test_a_failed_start_restores_the_terminal(
    engine: PrivateEngine, busybox: str, name: str
) -> None:
    command = words(engine, "run", "-it", "--name", name, busybox, "/no/such/program")
    with Terminal(command, dict(os.environ)) as terminal:
        before = termios.tcgetattr(terminal.master)
        assert terminal.process.wait(SECONDS) == 127
        assert termios.tcgetattr(terminal.master) == before


def test_interactive_attach_requires_a_terminal(engine: PrivateEngine, busybox: str) -> None:
    done = engine.cli("jaula", "run", "-it", "--rm", busybox, "true")
    assert done.returncode == 1
    assert done.stderr == "the input device is not a TTY\n"


def test_bad_detach_keys_leave_no_container(engine: PrivateEngine, busybox: str, name: str) -> None:
    done = engine.cli("jaula", "run", "--name", name, "--detach-keys", "foo", busybox, "true")
    assert done.returncode == 125
    assert "detach keys" in done.stderr
    assert engine.request("GET", f"/containers/{name}/json").status == 404


def test_an_exec_that_cannot_begin_does_not_leave_zero(
    engine: PrivateEngine, busybox: str, name: str
) -> None:
    engine.cli("jaula", "run", "-d", "--name", name, busybox, "sleep", "60")
    for flags in (["-u", "nosuch"], ["-w", "/no/such/directory"]):
        for command in ("jaula", "docker"):
            done = engine.cli(command, "exec", *flags, name, "true")
            assert done.returncode == 126, (command, flags, done.stderr)


def test_top_accepts_the_columns_of_ps(engine: PrivateEngine, busybox: str, name: str) -> None:
    engine.cli("jaula", "run", "-d", "--name", name, busybox, "sleep", "61")
    done = engine.cli("jaula", "top", name, "-o", "pid,args")
    assert done.stdout.splitlines()[1].endswith("sleep 61")


def test_start_attached_returns_the_exit_status(
    engine: PrivateEngine, busybox: str, name: str
) -> None:
    made = engine.cli(
        "jaula", "create", "-i", "--name", name, busybox, "sh", "-c", "cat; exit 6"
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        words(engine, "start", "-ai", name), input=b"text\n", capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (b"text\n", 6), done.stderr


def test_the_cidfile_holds_the_id_and_is_never_overwritten(
    engine: PrivateEngine, busybox: str, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "cid"
    made = engine.cli("jaula", "create", "--cidfile", str(file), "--name", name, busybox)
    assert file.read_text() == made.stdout.strip()
    again = engine.cli("jaula", "create", "--cidfile", str(file), busybox)
    assert again.returncode == 125
    assert "container ID file found" in again.stderr


def test_a_closed_output_ends_the_client_quietly(
    engine: PrivateEngine, busybox: str, name: str
) -> None:
    shell = f"{' '.join(words(engine, 'run', '--name', name, busybox, 'yes'))} | head -n1"
    done = subprocess.run(
        ["bash", "-c", f"{shell}; echo ${{PIPESTATUS[0]}}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[0] == "y"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "leave"), [(["cgtop"], "q"), (["stats"], "\x03")])
def test_a_live_view_is_redrawn_in_place_and_restores_the_terminal(
    engine: PrivateEngine, busybox: str, name: str, command: list[str], leave: str
) -> None:
    made = engine.cli("jaula", "run", "-d", "--name", name, busybox, "sleep", "60")
    assert made.returncode == 0, made.stderr
    with Terminal(words(engine, *command), dict(os.environ), 20, 160) as terminal:
        before = termios.tcgetattr(terminal.master)
        terminal.expect(name)
        terminal.send(leave)
        assert terminal.process.wait(SECONDS) in (0, 130)
        assert termios.tcgetattr(terminal.master) == before
