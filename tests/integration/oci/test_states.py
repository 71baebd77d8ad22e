"""runtime.md: the states of a container, and each operation in each of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.containers import eventually
from harness.private_runtime import RUNTIME, Bundle, Config, PrivateRuntime
from jaula.kernel.poll import readable

NAMES = ("creating", "created", "running", "paused", "stopped")


def failed(bundle: Bundle, *words: str, code: int = 1) -> str:
    """The one line of a command that must fail."""
    done = bundle.command(*words)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    text: str = json.loads(line.partition(" level=error msg=")[2])
    return text


def stop(bundle: Bundle) -> None:
    assert bundle.command("kill", bundle.id, "KILL").returncode == 0
    assert bundle.ended() == -9


def test_state_follows_the_lifecycle(runtime: PrivateRuntime) -> None:
    with runtime.created({"annotations": {"a": "b"}}) as bundle:
        state = bundle.state()
        assert {
            "ociVersion": "1.2.0",
            "id": bundle.id,
            "pid": bundle.pid,
            "status": "created",
            "bundle": str(bundle.path),
            "annotations": {"a": "b"},
        }.items() <= state.items()
        assert state["rootfs"] == str(runtime.rootfs)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", state["created"])
        assert bundle.start().returncode == 0
        assert bundle.status() == "running"
        assert bundle.command("pause", bundle.id).returncode == 0
        assert bundle.state()["status"] == "paused"
        assert bundle.command("resume", bundle.id).returncode == 0
        assert bundle.status() == "running"
        stop(bundle)
        state = bundle.state()
        assert (state["status"], state["pid"]) == ("stopped", 0)
        assert bundle.delete().returncode == 0
        assert failed(bundle, "state", bundle.id) == f"container {bundle.id} does not exist"


def test_the_program_does_not_run_before_the_start(runtime: PrivateRuntime) -> None:
    with runtime.created(script="echo ran; exec sleep 60") as bundle:
        assert bundle.out.read_text() == ""
        assert bundle.proc("cmdline").split("\0")[0] != "sleep"
        assert bundle.start().returncode == 0
        eventually(lambda: bundle.out.read_text() == "ran\n", "the program runs")


def test_the_pid_file_is_the_host_s_number_without_a_newline(runtime: PrivateRuntime) -> None:
    with runtime.created() as bundle:
        text = (bundle.path / "pid").read_text()
        assert text == str(bundle.pid) == str(bundle.state()["pid"])
        assert not list(bundle.path.glob(".pid*"))


@pytest.mark.parametrize(
    ("state", "words", "text"),
    [
        ("running", ["start"], "cannot start an already running container"),
        ("paused", ["start"], "cannot start an already running container"),
        ("stopped", ["start"], "cannot start a container that has stopped"),
        ("running", ["delete"], "that is not stopped: running"),
        ("paused", ["delete"], "that is not stopped: paused"),
        ("stopped", ["pause"], "it is stopped"),
        ("paused", ["pause"], "it is paused"),
        ("running", ["resume"], "it is running, not paused"),
        ("created", ["resume"], "it is created, not paused"),
        ("stopped", ["resume"], "it is stopped, not paused"),
        ("stopped", ["kill"], "container not running"),
        ("stopped", ["update", "--pids-limit", "5"], "it is stopped"),
        ("stopped", ["events", "--stats"], "is not running"),
    ],
)
def test_an_operation_that_the_state_forbids_is_refused(
    runtime: PrivateRuntime, state: str, words: list[str], text: str
) -> None:
    with runtime.created() as bundle:
        if state != "created":
            assert bundle.start().returncode == 0
        if state == "paused":
            assert bundle.command("pause", bundle.id).returncode == 0
        elif state == "stopped":
            stop(bundle)
        assert text in failed(bundle, *words, bundle.id)
        assert bundle.status() == state


def test_exec_in_each_state(runtime: PrivateRuntime) -> None:
    words = ["exec"]
    with runtime.created() as bundle:
        assert bundle.command(*words, bundle.id, "true").returncode == 0  # as in runc
        assert bundle.start().returncode == 0
        assert bundle.command(*words, bundle.id, "true").returncode == 0
        assert bundle.command("pause", bundle.id).returncode == 0
        assert "paused" in failed(bundle, *words, bundle.id, "true", code=255)
        assert bundle.command("resume", bundle.id).returncode == 0
        stop(bundle)
        assert "stopped" in failed(bundle, *words, bundle.id, "true", code=255)


@pytest.mark.parametrize("state", NAMES[1:])
def test_delete_force_removes_in_every_state(runtime: PrivateRuntime, state: str) -> None:
    bundle = runtime.bundle(script="sleep 100 & sleep 100")
    bundle.create()
    if state != "created":
        bundle.start()
    if state == "paused":
        bundle.command("pause", bundle.id)
    elif state == "stopped":
        stop(bundle)
    assert bundle.delete("--force").returncode == 0
    assert not runtime.left()


def test_a_created_container_is_deleted_as_runc_does(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle()
    bundle.create()
    assert bundle.delete().returncode == 0
    assert not runtime.left()


def test_delete_of_a_missing_container(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle()
    assert failed(bundle, "delete", bundle.id) == f"container {bundle.id} does not exist"
    assert bundle.delete("--force").returncode == 0
    assert bundle.command("delete", "--force", bundle.id).stderr == ""


def test_an_id_in_use_is_refused_whatever_the_state(runtime: PrivateRuntime) -> None:
    with runtime.created() as bundle:
        text = f"container with given ID already exists: {bundle.id}"
        for _ in ("created", "running"):
            bundle.err.write_text("")
            assert bundle.make("create") == 1
            assert text in bundle.err.read_text()
            bundle.start()
        stop(bundle)
        assert bundle.make("create") == 1
        assert bundle.status() == "stopped"


@pytest.mark.parametrize(
    "name", ["../x", "", ".", "..", "a/b", "a\nb", "é", "a b", "x" * 256, "a\x1bb"]
)
@pytest.mark.parametrize("words", [["create"], ["state"], ["start"], ["delete", "--force"]])
def test_a_hostile_id_is_refused_in_one_line(
    runtime: PrivateRuntime, name: str, words: list[str]
) -> None:
    bundle = runtime.bundle()
    flags = ["--bundle", str(bundle.path)] if words == ["create"] else []
    done = bundle.command(*words, *flags, "--", name)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "container id" in done.stderr.lower()
    assert "\x1b" not in done.stderr
    assert not (runtime.base / "x").exists()


def test_an_id_may_be_as_long_as_a_file_s_name(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(script="true")
    bundle.id = "x" * 255
    assert bundle.run().returncode == 0


# signals


@pytest.mark.parametrize("name", ["15", "TERM", "SIGTERM", "term", "sigterm"])
def test_kill_by_name_and_number(runtime: PrivateRuntime, name: str) -> None:
    script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    with runtime.started(script=script) as bundle:
        eventually(lambda: bundle.out.read_text() == "ready\n", "the trap is set")
        assert bundle.command("kill", bundle.id, name).returncode == 0
        assert bundle.ended() == 7
        assert bundle.out.read_text() == "ready\ngot it\n"


def test_kill_without_a_signal_is_term(runtime: PrivateRuntime) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    with runtime.started(script=script) as bundle:
        eventually(lambda: bundle.out.read_text() == "ready\n", "the trap is set")
        assert bundle.command("kill", bundle.id).returncode == 0
        assert bundle.ended() == 7


def test_kill_0_tells_whether_the_container_runs(runtime: PrivateRuntime) -> None:
    with runtime.created() as bundle:
        assert bundle.command("kill", bundle.id, "0").returncode == 0
        assert bundle.status() == "created"
        assert bundle.command("kill", bundle.id, "KILL").returncode == 0
        bundle.ended()
        assert "container not running" in failed(bundle, "kill", bundle.id, "0")


@pytest.mark.parametrize("name", ["65", "-1", "SIGNOPE", "", "SIG_IGN", "9x", "__class__"])
def test_an_invalid_signal_is_refused(runtime: PrivateRuntime, name: str) -> None:
    with runtime.created() as bundle:
        assert "unknown signal" in failed(bundle, "kill", "--", bundle.id, name)


def test_kill_of_a_stopped_container_has_the_text_that_callers_search_for(
    runtime: PrivateRuntime,
) -> None:
    with runtime.started(script="true") as bundle:
        bundle.ended()
        assert failed(bundle, "kill", bundle.id, "9") == "container not running"
        assert failed(bundle, "kill", bundle.id, "TERM") == "container not running"
    assert failed(bundle, "kill", bundle.id, "9") == f"container {bundle.id} does not exist"


def test_a_created_container_can_be_killed(runtime: PrivateRuntime) -> None:
    with runtime.created() as bundle:
        assert bundle.command("kill", bundle.id, "KILL").returncode == 0
        assert bundle.ended() == -9
        assert bundle.status() == "stopped"


@pytest.mark.slow
def test_a_client_that_sends_nothing_does_not_prevent_the_start(runtime: PrivateRuntime) -> None:
    """Init leaves it after 10 seconds."""
    with runtime.created() as bundle:
        flags = os.O_PATH | os.O_DIRECTORY
        directory = os.open(
            runtime.root / bundle.id, flags
        )  # its path may be too long for a socket
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(f"/proc/self/fd/{directory}/start.sock")
            os.close(directory)
            begun = time.monotonic()
            assert bundle.start().returncode == 0
            assert time.monotonic() - begun < 30
        assert bundle.status() == "running"
        stop(bundle)


def test_a_paused_container_can_be_killed(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        bundle.command("pause", bundle.id)
        assert bundle.command("kill", bundle.id, "KILL").returncode == 0
        assert bundle.ended() == -9
        assert bundle.status() == "stopped"


def members(bundle: Bundle) -> list[int]:
    """Return the processes that the kernel counts in the container's cgroup, without zombies."""
    done = bundle.command("ps", "--format", "json", bundle.id)
    pids: list[int] = json.loads(done.stdout) if done.returncode == 0 else []
    return [pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_kill_all_signals_processes_that_outlive_init(runtime: PrivateRuntime) -> None:
    kinds = ("network", "ipc", "uts", "mount", "cgroup")
    shared: Config = {"linux": {"namespaces": [{"type": kind} for kind in kinds]}}
    script = "setsid sleep 333 & setsid sleep 333 & sleep 0.2"
    with runtime.started(shared, script=script) as bundle:
        bundle.ended()
        assert bundle.status() == "stopped"
        assert len(members(bundle)) == 2
        assert failed(bundle, "kill", bundle.id, "TERM") == "container not running"
        assert bundle.command("kill", "--all", bundle.id, "9").returncode == 0
        eventually(lambda: not members(bundle), "they end")
        assert failed(bundle, "kill", "--all", bundle.id, "9") == "container not running"


def test_delete_kills_processes_that_outlive_init(runtime: PrivateRuntime) -> None:
    kinds = ("network", "ipc", "uts", "mount", "cgroup")
    shared: Config = {"linux": {"namespaces": [{"type": kind} for kind in kinds]}}
    with runtime.started(shared, script="setsid sleep 444 & sleep 0.1") as bundle:
        bundle.ended()
        assert bundle.delete().returncode == 0
        assert not members(bundle)


# parent, descriptors


def test_init_is_adopted_by_the_caller_s_subreaper(runtime: PrivateRuntime) -> None:
    with runtime.started(script="exit 42") as bundle:
        assert bundle.ended() == 42  # this process is the subreaper: it could wait for it


def test_an_exited_init_is_a_stopped_container(runtime: PrivateRuntime) -> None:
    with runtime.started(script="exit 3") as bundle:
        eventually(lambda: bundle.status() == "stopped", "it ends, if only as a zombie")


DESCRIPTORS = """
import os, subprocess, sys
preserve, *words = sys.argv[1:]
made = [os.memfd_create(f"m{n}", 0) for n in range(4)]
for number, fd in zip((3, 4, 7, 20), [os.dup(fd) for fd in made]):
    os.dup2(fd, number, inheritable=True)
flags = ["--preserve-fds", preserve] if preserve != "-" else []
at = words.index("FLAGS")
words[at:at + 1] = flags
os.execv(words[0], words)
"""


@pytest.mark.parametrize(
    ("preserve", "numbers"),
    [("-", "0 1 2"), ("0", "0 1 2"), ("1", "0 1 2 3"), ("2", "0 1 2 3 4")],
)
@pytest.mark.parametrize("command", ["run", "exec"])
def test_descriptors_beyond_those_preserved_are_closed(
    runtime: PrivateRuntime, preserve: str, numbers: str, command: str
) -> None:
    script = "ls /proc/$$/fd; true"
    line = [sys.executable, "-c", DESCRIPTORS, preserve]
    start = [str(RUNTIME), "--root", str(runtime.root), command, "FLAGS"]
    with runtime.started() as running:
        bundle = runtime.bundle(script=script)
        words = [*start, "--bundle", str(bundle.path), bundle.id]
        if command == "exec":
            words = [*start, running.id, "sh", "-c", script]
        done = subprocess.run(
            [*line, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 0, done.stderr
    result = [number for number in done.stdout.split() if number not in ("10", "255")]
    assert result == numbers.split()


@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_descriptor_of_the_runtime_is_never_preserved(
    runtime: PrivateRuntime, command: str, tmp_path: Path
) -> None:
    with runtime.started() as running:
        bundle = runtime.bundle(script="ls /proc/$$/fd; true")
        words = ["--bundle", str(bundle.path), bundle.id]
        if command == "exec":
            words = [running.id, "true"]
        log = ["--log", str(tmp_path / "log")]  # takes a number itself
        done = runtime.command(*log, command, "--preserve-fds", "2", *words)
        assert done.returncode in (1, 255)
        assert "descriptor 3 is not open" in done.stderr


def test_standard_streams_are_the_caller_s_own(runtime: PrivateRuntime, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the caller\n")
    with (tmp_path / "in").open("rb") as source:
        bundle = runtime.bundle(script='read line; echo "$line"; echo error >&2')
        bundle.create(stdin=source)
    try:
        assert bundle.start().returncode == 0
        assert bundle.ended() == 0
        assert bundle.out.read_text() == "from the caller\n"
        assert bundle.err.read_text() == "error\n"
    finally:
        bundle.delete("--force")


def test_a_pidfd_goes_to_its_socket(runtime: PrivateRuntime, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "pidfd"))
        listening.listen()
        with runtime.created(None, "--pidfd-socket", str(tmp_path / "pidfd")) as bundle:
            peer, _ = listening.accept()
            with peer:
                _, fds, _, _ = socket.recv_fds(peer, 100, 1)
            text = Path(f"/proc/self/fdinfo/{fds[0]}").read_text()
            assert f"Pid:\t{bundle.pid}\n" in text
            signal.pidfd_send_signal(fds[0], signal.SIGKILL)
            os.close(fds[0])
            assert bundle.ended() == -9


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1"])
def test_a_signal_ends_a_created_container(runtime: PrivateRuntime, name: str) -> None:
    with runtime.created() as bundle:
        assert bundle.command("kill", bundle.id, name).returncode == 0
        assert bundle.ended() == 128 + signal.Signals[f"SIG{name}"]
        assert bundle.status() == "stopped"


def test_kill_ends_every_process_without_a_pid_namespace(runtime: PrivateRuntime) -> None:
    spaces = [entry for entry in runtime.config["linux"]["namespaces"] if entry["type"] != "pid"]
    script = "sleep 500 & echo $!; exec sleep 600"
    with runtime.started({"linux": {"namespaces": spaces}}, script=script) as bundle:
        eventually(lambda: bundle.out.read_text().endswith("\n"), "the child runs")
        child = int(bundle.out.read_text())
        pidfd = os.pidfd_open(child)
        try:
            assert bundle.command("kill", bundle.id, "KILL").returncode == 0
            ready = readable(10, pidfd)
            assert ready, "the child runs on"
        finally:
            os.close(pidfd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
