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


def test_a_removed_run_directory_is_made_again(host: RootlessHost) -> None:
    process = host.jaula("inspect", "-f", "{{.State.Pid}}", "kept").stdout.strip()
    shutil.rmtree(host.path(f"{host.state}/jaula"))
    eventually(host.path(host.socket).exists, "the socket is back")
    assert "another program removed the run directory" in host.log_tail()
    assert is_kept(host, process)
    assert host.jaula("run", "--rm", "busybox", "echo", "runs").stdout == "runs\n"
