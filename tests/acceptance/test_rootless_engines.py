"""Two engines of one user never harm each other, and a rootless engine makes its files again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.containers import eventually
from harness.rootless import SLOW, RootlessHost
from jaula.kernel.poll import readable


@pytest.fixture
def host(busybox_archive: Path) -> Iterator[RootlessHost]:
    """Yield a user whose first engine has a container ``kept``."""
    with RootlessHost() as made:
        made.load(busybox_archive)
        made.jaula("run", "-d", "--name", "kept", "-p", "19033:80", "busybox", "sleep", "1000")
        yield made


def daemon(host: RootlessHost, name: str, run: str) -> list[str]:
    root = str(host.home / name)
    flags = ("--config-file", "/dev/null", "--root", root, "--run", run)
    words = (f"{host.tree}/jaula", "daemon", *flags, "--socket", f"{run}/{name}.sock")
    return host.as_user(*words)


@contextlib.contextmanager
def second(host: RootlessHost) -> Iterator[str]:
    """Yield the address of another engine of the user, with directories of its own."""
    run = f"{host.state}/second"
    engine = subprocess.Popen(
        daemon(host, "second", run), env=host.environment(), stderr=subprocess.DEVNULL
    )
    try:
        eventually(host.path(f"{run}/second.sock").exists, "it serves", SLOW)
        yield f"unix://{run}/second.sock"
    finally:
        engine.send_signal(signal.SIGTERM)
        engine.wait(SLOW)


def is_kept(host: RootlessHost, process: str) -> bool:
    """Return whether the first engine's container runs as before."""
    done = host.jaula("inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "kept")
    return (
        done.stdout.split() == [process, "true"]
        and host.jaula("exec", "kept", "echo", "here").stdout == "here\n"
    )


def test_engines_with_directories_of_their_own_live_beside_each_other(
    host: RootlessHost, busybox_archive: Path
) -> None:
    process = host.jaula("inspect", "-f", "{{.State.Pid}}", "kept").stdout.strip()
    (first,) = host.engines()
    with second(host) as address:
        with busybox_archive.open("rb") as file:
            host.jaula("-H", address, "load", stdin=file)
        done = host.jaula("-H", address, "run", "--rm", "busybox", "echo", "mine")
        assert done.stdout == "mine\n"
        refused = host.jaula(
            *("-H", address, "run", "--rm", "-p", "19033:80", "busybox", "true"), expect=None
        )
        assert refused.returncode != 0  # the port belongs to the container of the first engine
        assert is_kept(host, process)
        (other,) = (pid for pid in host.engines() if pid != first)
        os.kill(other, signal.SIGKILL)
        assert is_kept(host, process)
        os.kill(first, signal.SIGTERM)
        eventually(lambda: first not in host.engines(), "the first engine ends", SLOW)
    assert is_kept(host, process)


def test_a_second_engine_with_the_run_directory_of_the_first_is_refused(
    host: RootlessHost,
) -> None:
    process = host.jaula("inspect", "-f", "{{.State.Pid}}", "kept").stdout.strip()
    before = sorted(path.name for path in host.path(f"{host.state}/jaula").iterdir())
    done = subprocess.run(
        daemon(host, "second", f"{host.state}/jaula"),
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=SLOW,
    )
    assert done.returncode != 0
    assert f"the run directory {host.state}/jaula" in done.stderr
    assert "give this engine its own with" in done.stderr
    assert "--run DIRECTORY" in done.stderr
    assert sorted(path.name for path in host.path(f"{host.state}/jaula").iterdir()) == before
    assert is_kept(host, process)


def end_engine(host: RootlessHost, number: signal.Signals) -> None:
    """End the engine, and wait until all of its threads have ended, which share its sockets."""
    engine = host.engine()
    pidfd = os.pidfd_open(engine)
    try:
        os.kill(engine, number)
        assert readable(SLOW, pidfd)
    finally:
        os.close(pidfd)


REMOVED = "another program removed the run directory"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_removed_run_directory_is_made_again(host: RootlessHost, number: signal.Signals) -> None:
    """Also the files of the namespace holder: the next engine has its namespaces and ports."""
    process = host.jaula("inspect", "-f", "{{.State.Pid}}", "kept").stdout.strip()
    (holder,) = host.processes("jaula-keeper")
    helpers = host.processes("pasta")
    holder_files = host.path(f"{host.state}/jaula/keeper")
    names = sorted(path.name for path in holder_files.iterdir())
    shutil.rmtree(host.path(f"{host.state}/jaula"))
    eventually(lambda: REMOVED in host.log_tail(), "it says so", SLOW)
    assert "Restart" not in host.log_tail()
    left = {"lock", "pasta.log", "resolv.conf"}  # made when they are needed
    assert {path.name for path in holder_files.iterdir()} - left == {*names} - left
    assert is_kept(host, process)
    assert host.jaula("run", "--rm", "busybox", "echo", "runs").stdout == "runs\n"
    port = ("-p", "19034:80")
    host.jaula("run", "-d", "--name", "later", *port, "busybox", "sleep", "1000")
    end_engine(host, number)
    assert is_kept(host, process)
    assert host.jaula("exec", "later", "echo", "here").stdout == "here\n"
    assert "failed to bind" not in host.log_tail()
    assert host.processes("jaula-keeper") == [holder]
    assert host.processes("pasta") == helpers
    refused = host.jaula("run", "--rm", *port, "busybox", "true", expect=None)
    assert refused.returncode != 0
    host.jaula("stop", "-t", "0", "kept", "later")
    assert host.jaula("run", "--rm", *port, "busybox", "echo", "free").stdout == "free\n"
    os.kill(host.engine(), signal.SIGTERM)
    eventually(lambda: not host.processes("jaula-keeper"), "the holder ends", SLOW)


def test_a_run_directory_that_is_removed_again_and_again_is_made_again(
    host: RootlessHost,
) -> None:
    process = host.jaula("inspect", "-f", "{{.State.Pid}}", "kept").stdout.strip()
    (holder,) = host.processes("jaula-keeper")
    for count in (1, 2, 3):
        shutil.rmtree(host.path(f"{host.state}/jaula"))
        eventually(lambda: host.log_tail().count(REMOVED) == count, "it says so", SLOW)  # noqa: B023
    end_engine(host, signal.SIGKILL)
    assert is_kept(host, process)
    assert host.processes("jaula-keeper") == [holder]


@pytest.mark.slow
def test_a_holder_that_does_not_answer_is_said_to_be_lost(host: RootlessHost) -> None:
    (holder,) = host.processes("jaula-keeper")
    os.kill(holder, signal.SIGSTOP)
    try:
        shutil.rmtree(host.path(f"{host.state}/jaula"))
        eventually(lambda: REMOVED in host.log_tail(), "it says so", SLOW)
    finally:
        os.kill(holder, signal.SIGCONT)
    assert "The files of the namespace holder are lost" in host.log_tail()
    host.jaula("rm", "-f", "kept")


@pytest.mark.slow
def test_a_published_port_of_a_killed_holder_is_an_error(host: RootlessHost) -> None:
    (holder,) = host.processes("jaula-keeper")
    os.kill(holder, signal.SIGKILL)
    done = host.jaula("run", "--rm", "-p", "19034:80", "busybox", "true", expect=None)
    assert done.returncode != 0
    assert "the namespace holder of this engine does not respond" in done.stderr
    assert host.jaula("run", "--rm", "busybox", "echo", "runs").stdout == "runs\n"
