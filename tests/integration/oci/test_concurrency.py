"""Concurrent commands, and commands killed at any point: the rest can always be removed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.containers import eventually
from harness.private_runtime import RUNTIME, Bundle, Config, PrivateRuntime

SEED = 20260101  # of the sampled points; a failure names its point
Line = Sequence[object]


def together(*lines: Line) -> list[tuple[int, str]]:
    """Run command lines at once: (exit status, standard error) of each."""
    running = [
        subprocess.Popen(
            [str(word) for word in line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in lines
    ]
    return [(one.wait(30), one.communicate()[1]) for one in running]


def call(runtime: PrivateRuntime, *words: str) -> Line:
    return [RUNTIME, "--root", runtime.root, *words]


def test_one_of_two_starts_succeeds(runtime: PrivateRuntime) -> None:
    for _ in range(5):
        with runtime.created(script="echo ran; exec sleep 60") as bundle:
            results = together(*[call(runtime, "start", bundle.id)] * 3)
            assert sorted(code for code, _ in results) == [0, 1, 1]
            for code, text in results:
                if code:
                    assert "cannot start an already running container" in text
                    assert len(text.splitlines()) == 1
            eventually(lambda: bundle.out.read_text() == "ran\n", "the program runs, once")


def test_one_of_many_creations_of_an_id_succeeds(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle()
    out = bundle.path / "streams"
    with out.open("ab") as file:
        running = [
            subprocess.Popen(
                bundle.words("create", flags=["--pid-file", str(bundle.path / f"pid{n}")]),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
            for n in range(8)
        ]
    codes = [one.wait(30) for one in running]
    assert sorted(codes) == [0] + [1] * 7
    lines = out.read_text().splitlines()
    assert len(lines) == 7
    assert all(f"container with given ID already exists: {bundle.id}" in line for line in lines)
    pids = list(bundle.path.glob("pid?"))
    assert len(pids) == 1
    bundle.pid = int(pids[0].read_text())
    assert bundle.state()["pid"] == bundle.pid
    assert bundle.delete("--force").returncode == 0
    assert not runtime.left()


def test_a_delete_during_a_start_leaves_one_of_two_states(runtime: PrivateRuntime) -> None:
    for n in range(6):
        bundle = runtime.bundle()
        bundle.create()
        flags = ["--force"] if n % 2 else []
        (start, started), (delete, deleted) = together(
            call(runtime, "start", bundle.id), call(runtime, "delete", *flags, bundle.id)
        )
        for code, text in ((start, started), (delete, deleted)):
            assert code in (0, 1)
            assert len(text.splitlines()) == code, text
        assert start == 0 or delete == 0
        if delete == 0:
            assert not (runtime.root / bundle.id).exists()
        else:
            assert bundle.status() == "running"
        assert bundle.delete("--force").returncode == 0
    assert not runtime.left()


def test_many_deletes_at_once_end_well(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle()
    bundle.create()
    bundle.start()
    results = together(*[call(runtime, "delete", "--force", bundle.id)] * 4)
    assert results == [(0, "")] * 4
    assert not runtime.left()


def test_states_can_be_read_while_everything_changes(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle()
    script = 'for i in 1 2 3 4 5 6 7 8; do "$0" --root "$1" list >/dev/null || exit 1; done'
    reader = subprocess.Popen(
        ["sh", "-c", script, str(RUNTIME), str(runtime.root)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    for _ in range(3):
        bundle.create()
        bundle.start()
        bundle.delete("--force")
    _, errors = reader.communicate(timeout=30)
    assert (reader.returncode, errors) == (0, b"")


# killed


def removed(runtime: PrivateRuntime, bundle: Bundle, where: str) -> None:
    """``delete --force`` works, and the kernel has nothing of the container any more."""
    done = bundle.delete("--force")
    assert done.returncode == 0, f"{where}: {done.stderr}"
    left = runtime.left()
    assert not left, f"{where}: {left}"


def strace(inject: str, line: Line) -> tuple[int, str]:
    """Run a line with ``inject`` of strace(1) for it and its children: (status, its errors)."""
    words = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"inject={inject}"]
    done = subprocess.run(
        [*words, *(str(word) for word in line)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stderr


def killed_at(count: int, line: Line) -> None:
    """Run a command line that is killed at its ``count``th system call."""
    words = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject=all:signal=KILL:when={count}"]
    subprocess.run(
        [*words, *(str(word) for word in line)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )


def number_of_calls(line: Line, where: Path) -> int:
    """How many system calls the first process of a line makes."""
    subprocess.run(
        ["strace", "-qq", "-o", str(where), *(str(word) for word in line)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    return len(where.read_text().splitlines())


def points(calls: int, first: float, count: int) -> list[int]:
    """Sampled numbers, from the share ``first`` of the run to its end."""
    generator = random.Random(SEED)
    return sorted(generator.sample(range(int(calls * first), calls), count))


needs_strace = pytest.mark.needs("strace")
HOOKED: Config = {
    "hooks": {
        "createRuntime": [{"path": "/bin/true"}],
        "createContainer": [{"path": "/bin/true"}],
        "poststop": [{"path": "/bin/true"}],
    }
}


KINDS = ("pid", "network", "mount", "ipc", "uts", "cgroup", "user", "time")
ROWS = [{"containerID": 0, "hostID": 1_700_000_000, "size": 1000}]
MAPPED: Config = {
    "linux": {
        "namespaces": [{"type": kind} for kind in KINDS],
        "uidMappings": ROWS,
        "gidMappings": ROWS,
    }
}


@needs_strace
@pytest.mark.parametrize(
    ("words", "config"),
    [(("create",), HOOKED), (("run", "-d"), HOOKED), (("create",), MAPPED)],
    ids=["create", "run", "user namespace"],
)
def test_a_creation_that_is_killed_can_be_removed(
    runtime: PrivateRuntime, tmp_path: Path, words: tuple[str, ...], config: Config
) -> None:
    probe = runtime.bundle(config)
    calls = number_of_calls(probe.words(*words), tmp_path / "calls")
    removed(runtime, probe, "undisturbed")
    assert calls > 300
    for point in points(calls, 0.4, 12):  # before is the interpreter's start
        bundle = runtime.bundle(config)
        killed_at(point, bundle.words(*words))
        removed(runtime, bundle, f"killed at call {point} of {calls}")


OF_INIT = ("setsid", "sethostname", "pivot_root", "umount2", "capset", "accept4", "setresuid")


@needs_strace
@pytest.mark.parametrize("name", OF_INIT)
def test_an_init_killed_during_create_fails_the_creation(
    runtime: PrivateRuntime, name: str
) -> None:
    bundle = runtime.bundle(HOOKED)
    words = ["run", "-d"] if name in ("capset", "setresuid") else ["create"]
    status, errors = strace(f"{name}:signal=KILL", bundle.words(*words))
    if name == "accept4":  # it was ready by then
        assert bundle.status() == "stopped"
        assert bundle.delete().returncode == 0
    else:
        assert status == 1
        assert len(errors.splitlines()) == 1
        assert "init died" in errors
    assert not runtime.left()


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize("command", ["start", "delete", "exec", "kill", "pause"])
def test_a_killed_command_leaves_a_container_that_can_be_removed(
    runtime: PrivateRuntime, tmp_path: Path, command: str
) -> None:
    def prepared() -> tuple[Bundle, Line]:
        bundle = runtime.bundle(HOOKED)
        bundle.create()
        if command != "start":
            bundle.start()
        more = {"exec": ["true"], "kill": ["KILL"]}.get(command, [])
        flags = ["--force"] if command == "delete" else []
        return bundle, call(runtime, command, *flags, bundle.id, *more)

    bundle, line = prepared()
    calls = number_of_calls(line, tmp_path / "calls")
    removed(runtime, bundle, "undisturbed")
    for point in points(calls, 0.4, 6):
        bundle, line = prepared()
        killed_at(point, line)
        removed(runtime, bundle, f"killed at call {point} of {calls}")


def test_a_creation_that_is_killed_at_any_moment_can_be_removed(runtime: PrivateRuntime) -> None:
    generator = random.Random(SEED)
    for _ in range(12):
        bundle = runtime.bundle(HOOKED)
        running = subprocess.Popen(
            bundle.words("run"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        delay = generator.uniform(0.02, 0.16)
        time.sleep(delay)
        running.kill()
        running.wait()
        removed(runtime, bundle, f"killed after {delay:.3f} s")


def test_an_init_that_is_killed_in_a_hook_fails_the_creation(runtime: PrivateRuntime) -> None:
    slow: Config = {"hooks": {"createContainer": [{"path": "/bin/sleep", "args": ["sleep", "60"]}]}}
    bundle = runtime.bundle(slow)
    with bundle.err.open("wb") as err:
        running = subprocess.Popen(
            bundle.words("create"), stdin=subprocess.DEVNULL, stdout=err, stderr=err
        )
    eventually(lambda: any("sleep" in line for line in runtime.processes()), "the hook runs")
    assert bundle.command("kill", bundle.id, "KILL").returncode == 0
    assert running.wait(10) == 1
    assert len(bundle.err.read_text().splitlines()) == 1
    assert not runtime.left()


def test_an_empty_state_directory_is_a_stopped_container(
    runtime: PrivateRuntime,
) -> None:
    bundle = runtime.bundle()
    (runtime.root / bundle.id).mkdir(parents=True)
    assert bundle.status() == "stopped"
    assert bundle.command("list").returncode == 0
    assert bundle.start().returncode == 1
    for words in (["kill", bundle.id, "KILL"], ["kill", "--all", bundle.id, "KILL"]):
        done = bundle.command(*words)
        assert done.returncode == 1
        assert "container not running" in done.stderr
    assert bundle.delete().returncode == 0
    assert not (runtime.root / bundle.id).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"id": 5}', b"\xff"])
def test_a_damaged_record_is_one_clear_error_and_can_be_removed(
    runtime: PrivateRuntime, content: bytes
) -> None:
    bundle = runtime.bundle()
    place = runtime.root / bundle.id
    place.mkdir(parents=True)
    (place / "state.json").write_bytes(content)
    done = bundle.command("state", bundle.id)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert bundle.command("list").returncode == 0
    done = bundle.delete("--force")
    assert done.returncode == 0, done.stderr
    assert not place.exists()


def test_a_reused_pid_is_never_signalled(runtime: PrivateRuntime) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        bundle = runtime.bundle()
        bundle.create()
        bundle.command("kill", bundle.id, "KILL")
        bundle.ended()
        state = runtime.root / bundle.id / "state.json"
        state.write_text(state.read_text().replace(f'"pid":{bundle.pid}', f'"pid":{stranger.pid}'))
        assert f'"pid":{stranger.pid}' in state.read_text()
        assert bundle.status() == "stopped"
        assert bundle.command("kill", bundle.id, "KILL").returncode == 1
        assert bundle.delete("--force").returncode == 0
        assert stranger.poll() is None
        stranger.kill()


def test_a_container_without_its_cgroup_can_be_deleted(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle()
    bundle.create()
    os.kill(bundle.pid, signal.SIGKILL)
    bundle.ended()
    for line in runtime.cgroups():
        Path(line.removeprefix("cgroup ")).rmdir()
    assert bundle.status() == "stopped"
    assert bundle.delete().returncode == 0


def test_a_container_without_its_bundle_can_be_deleted(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(own_root=True)
    bundle.create()
    shutil.rmtree(bundle.path)
    assert bundle.status() == "created"
    assert bundle.command("delete", "--force", bundle.id).returncode == 0
    os.waitpid(bundle.pid, 0)
