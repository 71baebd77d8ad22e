"""Two engines of one user in one delegated cgroup: the second is told, the first lives."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.containers import eventually
from harness.rootless import SLOW, DelegatedHost
from jaula.kernel.poll import readable

ENDS = [signal.SIGTERM, signal.SIGKILL]


@pytest.fixture
def host(busybox_archive: Path) -> Iterator[DelegatedHost]:
    """Yield a user whose first engine has a container ``kept``, with a cgroup."""
    with DelegatedHost() as made:
        made.load(busybox_archive)
        made.jaula("run", "-d", "--name", "kept", "busybox", "sleep", "1000")
        yield made


class Second:
    """Another engine of the user, with directories of its own, in the same delegated cgroup."""

    def __init__(self, host: DelegatedHost, *flags: str) -> None:
        self._host = host
        self._run = f"{host.state}/second"
        root = str(host.home / "second")
        words = ("--config-file", "/dev/null", "--root", root, "--run", self._run)
        socket = f"{self._run}/second.sock"
        self._command = host.as_user(
            f"{host.tree}/jaula", "daemon", *words, "--socket", socket, *flags
        )
        self.address = ("-H", f"unix://{socket}")
        self._socket = host.path(socket)
        self.process: subprocess.Popen[bytes] | None = None

    def refusal(self) -> str:
        """Return the error of an engine that does not start."""
        done = subprocess.run(
            self._command,
            env=self._host.environment(),
            capture_output=True,
            text=True,
            timeout=SLOW,
        )
        assert done.returncode != 0
        return done.stderr

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, env=self._host.environment(), stderr=subprocess.DEVNULL
        )
        eventually(self._socket.is_socket, "it serves", SLOW)
        eventually(lambda: self.jaula("version", expect=None).returncode == 0, "it answers", SLOW)

    def jaula(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return self._host.jaula(*self.address, *words, **options)

    def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(SLOW)
        self.process = None


@contextlib.contextmanager
def second(host: DelegatedHost, busybox_archive: Path) -> Iterator[Second]:
    """Yield another engine with a cgroup parent of its own and a container ``other``."""
    engine = Second(host, "--cgroup-parent", "/second")
    engine.start()
    try:
        with busybox_archive.open("rb") as file:
            engine.jaula("load", stdin=file)
        engine.jaula("run", "-d", "--name", "other", "busybox", "sleep", "1000")
        yield engine
        engine.jaula("rm", "-f", "other")
    finally:
        if engine.process is not None:
            engine.end(signal.SIGTERM)


def end_first(host: DelegatedHost, number: signal.Signals) -> None:
    """End the first engine, and wait until all of its threads have ended."""
    (engine,) = (pid for pid in host.engines() if b"second" not in arguments(pid))
    pidfd = os.pidfd_open(engine)
    try:
        os.kill(engine, number)
        assert readable(SLOW, pidfd)
    finally:
        os.close(pidfd)


def arguments(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def pid_of(run: object, name: str) -> str:
    done = run("inspect", "-f", "{{.State.Pid}} {{.State.Running}}", name)  # type: ignore[operator]
    pid, running = done.stdout.split()
    assert running == "true"
    return str(pid)


def cgroup_of(pid: str) -> str:
    """Return the v2 cgroup of a process, as the test sees it."""
    (line,) = (
        line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if "0::" in line
    )
    return line.removeprefix("0::")


def test_containers_are_in_the_delegated_cgroup(host: DelegatedHost) -> None:
    identity = host.jaula("inspect", "-f", "{{.Id}}", "kept").stdout.strip()
    place = cgroup_of(pid_of(host.jaula, "kept"))
    assert place == f"/{host.namespaces.tag}/jaula/{identity}"
    host.jaula("pause", "kept")
    frozen = host.path(f"/sys/fs/cgroup{place}/cgroup.freeze")
    assert frozen.read_text() == "1\n"
    host.jaula("unpause", "kept")


def test_the_parent_of_a_running_engine_is_refused(host: DelegatedHost) -> None:
    process = pid_of(host.jaula, "kept")
    error = Second(host).refusal()
    assert f"the cgroup parent {host.cgroup}/jaula belongs to another engine" in error
    assert str(host.home) in error
    assert "give this engine its own with --cgroup-parent NAME" in error
    assert pid_of(host.jaula, "kept") == process


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDS)
def test_the_parent_of_an_ended_engine_is_kept_for_its_containers(
    host: DelegatedHost, number: signal.Signals
) -> None:
    process = pid_of(host.jaula, "kept")
    place = cgroup_of(process)
    end_first(host, number)
    assert "--cgroup-parent NAME" in Second(host).refusal()
    assert cgroup_of(process) == place
    assert pid_of(host.jaula, "kept") == process  # the next engine has taken it over
    assert host.jaula("exec", "kept", "echo", "here").stdout == "here\n"
    host.jaula("rm", "-f", "kept")
    assert not host.path(f"/sys/fs/cgroup{place}").exists()
    end_first(host, number)
    engine = Second(host)
    engine.start()
    engine.end(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDS)
def test_the_end_of_either_engine_leaves_the_containers_of_the_other(
    host: DelegatedHost, busybox_archive: Path, number: signal.Signals
) -> None:
    with second(host, busybox_archive) as other:
        first_pid, second_pid = pid_of(host.jaula, "kept"), pid_of(other.jaula, "other")
        places = cgroup_of(first_pid), cgroup_of(second_pid)
        assert [place.split("/")[-2] for place in places] == ["jaula", "second"]
        other.end(number)
        assert pid_of(host.jaula, "kept") == first_pid
        assert host.jaula("run", "--rm", "busybox", "echo", "runs").stdout == "runs\n"
        assert cgroup_of(second_pid) == places[1]
        other.start()
        assert pid_of(other.jaula, "other") == second_pid
        end_first(host, number)
        assert other.jaula("run", "--rm", "busybox", "echo", "runs").stdout == "runs\n"
        assert cgroup_of(first_pid) == places[0]
        assert pid_of(host.jaula, "kept") == first_pid
        assert pid_of(other.jaula, "other") == second_pid
