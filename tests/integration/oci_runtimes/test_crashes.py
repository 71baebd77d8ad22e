"""After any kill, a container of an external runtime keeps running or is removed whole."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from harness import containers, leaks
from harness.containers import eventually
from harness.engine import PROJECT, PrivateEngine

IMAGE = "busybox"
Own = Callable[..., PrivateEngine]


def start(engine: PrivateEngine, runtime: str, *flags: str) -> str:
    name = containers.unique()
    script = "trap 'exit 3' TERM; while :; do echo x; sleep 0.1; done"
    words = ("run", "-d", "--name", name, "--runtime", runtime, *flags, IMAGE, "sh", "-c", script)
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, done.stderr + engine.log_tail()
    return name


def state(engine: PrivateEngine, name: str) -> dict[str, object]:
    result: dict[str, object] = containers.inspect(engine, name)["State"]
    return result


def test_a_killed_engine_restores_its_container(own: Own, runtime: str) -> None:
    engine = own()
    name = start(engine, runtime)
    pid = containers.pid(engine, name)
    engine.kill()
    lines = len((next((engine.root / "lib/containers").glob("*/*-json.log"))).read_text())
    time.sleep(0.5)
    engine.start()
    assert containers.pid(engine, name) == pid
    assert len(engine.cli("jaula", "logs", name).stdout) > 0
    assert len((next((engine.root / "lib/containers").glob("*/*-json.log"))).read_text()) > lines
    done = engine.cli("jaula", "exec", name, "sh", "-c", "exit 4")
    assert done.returncode == 4, done.stderr
    for action in ("pause", "unpause"):
        assert engine.cli("jaula", action, name).returncode == 0
    assert engine.cli("jaula", "update", "-m", "90m", name).returncode == 0
    assert engine.cli("jaula", "stop", "-t", "20", name).returncode == 0
    assert state(engine, name)["ExitCode"] == 3
    engine.remove_containers()
    containers.assert_clean(engine)


def test_a_runtime_that_is_no_longer_configured_still_ends_its_container(
    own: Own, runtime: str
) -> None:
    engine = own()
    name = start(engine, runtime)
    engine.kill()
    engine.extra_flags = ()
    engine.start()
    assert engine.cli("jaula", "stop", "-t", "20", name).returncode == 0
    assert state(engine, name)["ExitCode"] == 3
    done = engine.cli("jaula", "start", name)
    if runtime != "runc":  # which is a name for our own where no other has it
        assert done.returncode == 1
        assert f"unknown or invalid runtime name: {runtime}" in done.stderr
    engine.remove_containers()
    containers.assert_clean(engine)


def test_an_exit_without_an_engine_is_reported_by_the_next(own: Own, runtime: str) -> None:
    engine = own()
    name = start(engine, runtime)
    pid = containers.pid(engine, name)
    engine.kill()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the process is gone")
    engine.start()
    assert state(engine, name)["ExitCode"] == 137
    containers.assert_clean(engine)


def test_a_killed_shim_ends_its_container(own: Own, runtime: str) -> None:
    engine = own()
    name = start(engine, runtime)
    pid = containers.pid(engine, name)
    os.kill(containers.shim(pid), signal.SIGKILL)
    eventually(lambda: state(engine, name)["Status"] == "exited", "the end is told")
    assert state(engine, name)["ExitCode"] == 137
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the process is gone")
    containers.assert_clean(engine)
    assert not list((engine.run / "containers").iterdir())
    assert engine.cli("jaula", "start", name).returncode == 0
    engine.remove_containers()


def test_shim_and_engine_killed_together_leave_nothing_for_the_next(own: Own, runtime: str) -> None:
    engine = own()
    name = start(engine, runtime)
    pid = containers.pid(engine, name)
    shim = containers.shim(pid)
    engine.kill()
    os.kill(shim, signal.SIGKILL)
    engine.start()
    assert state(engine, name)["ExitCode"] == 255
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the process is gone")
    containers.assert_clean(engine)
    assert not list((engine.run / "containers").iterdir())


def test_an_interrupted_start_is_undone_or_taken_over(own: Own, runtime: str) -> None:
    """The engine is killed at several moments of a start, and the shims that exist then.

    A shim that the zygote forks later completes the start, and the next engine takes it over.
    """
    engine = own()
    name = containers.unique()
    done = engine.cli("jaula", "create", "--name", name, "--runtime", runtime, IMAGE, "sleep", "60")
    assert done.returncode == 0, done.stderr
    for moment in (0.02, 0.06, 0.12):
        client = subprocess.Popen(
            [str(PROJECT / "jaula"), "start", name],
            env=engine.environment(),
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moment)
        shims = _shims(engine)
        engine.kill()
        for shim in shims:
            try:
                os.kill(shim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        client.wait(30)
        engine.start()
        if state(engine, name)["Running"]:
            assert not shims, "the shim was killed"
            assert engine.cli("jaula", "exec", name, "true").returncode == 0
            assert engine.cli("jaula", "kill", name).returncode == 0
        containers.assert_clean(engine)
        assert not list((engine.run / "containers").iterdir())
    assert engine.cli("jaula", "start", name).returncode == 0
    engine.remove_containers()
    mark = str(engine.root)
    eventually(lambda: all(mark in line for line in leaks.processes(engine)), "all is reaped")


def _shims(engine: PrivateEngine) -> list[int]:
    """Shims and their helpers, which are forks of the engine's zygote."""
    assert engine.process is not None
    mark = str(engine.root).encode()
    result = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if (directory / "comm").read_text().strip() == "jaula-shim" and mark in (
                directory / "cmdline"
            ).read_bytes():
                result.append(int(directory.name))
        except OSError:
            continue
    return result
