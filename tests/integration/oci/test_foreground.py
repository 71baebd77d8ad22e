"""``run``: the exit status, signals, the caller's terminal, detached."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import termios
import time
from pathlib import Path

import pytest

from harness.containers import eventually
from harness.private_runtime import Config, PrivateRuntime
from harness.terminal import Terminal

TERMINAL: Config = {"process": {"terminal": True}}


@pytest.mark.parametrize(
    ("script", "code"),
    [("true", 0), ("exit 42", 42), ("kill -9 $$; exit 3", 3), ("exec sh -c 'exit 255'", 255)],
)
def test_the_exit_status_is_the_program_s(runtime: PrivateRuntime, script: str, code: int) -> None:
    # the first process of a pid namespace does not die of signals that it sends itself
    assert runtime.bundle(script=script).run().returncode == code


@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_a_program_that_a_signal_ends_is_128_and_its_number(
    runtime: PrivateRuntime, name: str
) -> None:
    kinds = ("network", "ipc", "uts", "mount", "cgroup")
    linux = {"namespaces": [{"type": kind} for kind in kinds]}
    done = runtime.bundle({"linux": linux}, script=f"kill -{name} $$").run()
    assert done.returncode == 128 + signal.Signals[f"SIG{name}"]


def test_nothing_is_left_after_the_exit(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(script="sleep 200 & sleep 300 & exit 5")
    assert bundle.run().returncode == 5
    assert not runtime.left()


def test_keep_keeps_a_stopped_container(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(script="exit 5")
    assert bundle.run("--keep").returncode == 5
    assert bundle.status() == "stopped"
    assert bundle.delete().returncode == 0


def test_a_missing_program_is_an_error_and_leaves_nothing(runtime: PrivateRuntime) -> None:
    done = runtime.bundle({"process": {"args": ["nope"]}}).run()
    assert done.returncode == 1
    assert 'exec: \\"nope\\": executable file not found in $PATH' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not runtime.left()


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1", "QUIT", "WINCH"])
def test_signals_go_to_the_program(runtime: PrivateRuntime, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    script = f"trap 'echo got {name}; exit 3' {name}; echo ready; while :; do sleep 0.02; done"
    bundle = runtime.bundle(script=script)
    with subprocess.Popen(
        bundle.words("run"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        if name == "WINCH":  # only with a terminal
            time.sleep(0.2)
            assert running.poll() is None
            running.send_signal(signal.SIGTERM)
            assert bundle.command("kill", bundle.id, "KILL").returncode == 0
            assert running.wait(10) == 137
        else:
            assert running.stdout.read() == f"got {name}\n"
            assert running.wait(10) == 3


def test_streams_are_passed_through(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(script="wc -c; echo error >&2")
    data = "x" * 300_000
    done = bundle.run(input=data, stdin=None)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("300000", "error\n", 0)


def test_a_terminal_is_relayed_raw(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(TERMINAL, script="stty size; exec sh")
    with Terminal(bundle.words("run"), dict(os.environ), rows=31, columns=91) as person:
        person.expect(r"31 91\r\n")
        person.expect("# ")
        person.send("tty; echo $((6*7))\r")
        person.expect(r"/dev/(pts/0|console)\r\n42\r\n")
        person.resize(20, 61)
        os.kill(person.process.pid, signal.SIGWINCH)
        time.sleep(0.2)
        person.send("stty size\r")
        person.expect("20 61")
        person.send("sleep 100\r")
        person.expect("sleep 100\r\n")
        time.sleep(0.2)
        person.send("\x03")
        person.expect("# ")
        time.sleep(0.3)  # until the shell reads keys, not lines: a line's end would be lost
        person.send("\x04")  # end of input, by the container's own terminal
        assert person.wait() == 130
    assert not runtime.left()


def test_the_caller_s_terminal_is_restored(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(TERMINAL, script="echo ready; read line")
    words = ["sh", "-c", '"$@"; exec sleep 0.5', "sh", *bundle.words("run")]
    modes = termios.ICANON | termios.ECHO | termios.ISIG
    with Terminal(words, dict(os.environ)) as person:
        person.expect("ready")
        assert termios.tcgetattr(person.master)[3] & modes == 0
        person.send("\r")
        eventually(lambda: termios.tcgetattr(person.master)[3] & modes == modes, "it is given back")
        assert person.wait() == 0


def test_output_of_a_terminal_is_whole_when_the_program_has_ended(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(TERMINAL, script="seq 1 20000")
    with Terminal(bundle.words("run"), dict(os.environ)) as person:
        assert person.wait() == 0
        while person._read(0.1):
            pass
        assert person.seen.replace("\r", "").split() == [str(n) for n in range(1, 20001)]


def test_a_detached_program_is_the_caller_s_child(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(script="exit 6")
    assert bundle.make("run", "--detach", "--pid-file", str(bundle.path / "pid")) == 0
    bundle.pid = int((bundle.path / "pid").read_text())
    assert bundle.ended() == 6
    assert bundle.status() == "stopped"
    assert bundle.delete().returncode == 0


def test_detached_with_a_terminal_on_a_socket(runtime: PrivateRuntime, tmp_path: Path) -> None:
    bundle = runtime.bundle(TERMINAL, script='echo ready; read line; echo "<$line>"')
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "console"))
        listening.listen()
        listening.settimeout(10)
        flags = ("-d", "--console-socket", str(tmp_path / "console"))
        assert bundle.make("run", *flags, "--pid-file", str(bundle.path / "pid")) == 0
        bundle.pid = int((bundle.path / "pid").read_text())
        peer, _ = listening.accept()
        with peer:
            _, fds, _, _ = socket.recv_fds(peer, 100, 1)
    os.write(fds[0], b"hello\n")
    text = b""
    while b"<hello>" not in text:
        text += os.read(fds[0], 4096)
    os.close(fds[0])
    assert text.startswith(b"ready")
    bundle.ended()
    assert bundle.delete().returncode == 0


def test_a_caller_that_is_killed_leaves_the_container_to_be_removed(
    runtime: PrivateRuntime,
) -> None:
    bundle = runtime.bundle()
    running = subprocess.Popen(
        bundle.words("run", flags=["--pid-file", str(bundle.path / "pid")]),
        stdin=subprocess.DEVNULL,
    )
    eventually((bundle.path / "pid").exists, "it runs")
    bundle.pid = int((bundle.path / "pid").read_text())
    running.kill()
    running.wait()
    assert bundle.status() == "running"
    assert bundle.delete("--force").returncode == 0
    assert not runtime.left()


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_relayed_terminal_passes_newlines_on_as_they_are(
    runtime: PrivateRuntime, command: str
) -> None:
    """The caller's terminal adds the carriage return; a file gets none."""
    if command == "run":
        assert runtime.bundle(TERMINAL, script="echo a; echo b").printed() == "a\nb\n"
        return
    with runtime.started() as bundle:
        done = bundle.exec("sh", "-c", "echo a; echo b", flags=["--tty"])
        assert (done.stdout, done.returncode) == ("a\nb\n", 0)
