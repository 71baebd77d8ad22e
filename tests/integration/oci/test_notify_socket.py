"""The notify socket of a container that a service creates or runs."""

from __future__ import annotations

import array
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.containers import eventually
from harness.private_runtime import Bundle, Config, PrivateRuntime

USERNS: Config = {
    "linux": {
        "namespaces": [{"type": kind} for kind in ("user", "pid", "ipc", "uts", "mount")],
        "uidMappings": [{"containerID": 0, "hostID": 0, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 0, "size": 65536}],
    }
}


class Manager:
    """A service manager's end: a datagram socket, and the environment that names it."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(20)
        self.socket.bind(str(path))
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(path)}

    def ready(self) -> tuple[list[bytes], int]:
        """Return the three messages and the descriptor of the barrier."""
        messages = [self.socket.recv(4096) for _ in range(2)]
        data, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4))
        barrier = array.array("i", control[0][2])
        return [*messages, data], barrier[0]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "manager.sock")
    with made.socket:
        yield made


def notify(pid: int, *messages: bytes) -> None:
    """Send messages to the container's socket, through its own mount."""
    path = f"/proc/{pid}/root/run/notify/notify.sock"
    eventually(lambda: os.path.exists(path), "the notify socket is bound")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
        for message in messages:
            program.sendto(message, path)


def written_pid(path: Path) -> int:
    eventually(path.exists, "the pid file is written")
    return int(path.read_text())


def relayed(manager: Manager, process: subprocess.Popen[str]) -> list[bytes]:
    """Return the messages of a ready program; the sender waits until they are read."""
    messages, barrier = manager.ready()
    assert process.poll() is None
    os.close(barrier)
    return messages


@pytest.mark.parametrize("changes", [{}, USERNS], ids=["host ids", "user namespace"])
def test_a_foreground_run_relays_readiness_as_the_main_process(
    runtime: PrivateRuntime, manager: Manager, tmp_path: Path, changes: Config
) -> None:
    script = "echo $NOTIFY_SOCKET; grep ' /run/notify ' /proc/self/mounts; read line; exit 4"
    bundle = runtime.bundle(changes, script=script)
    with subprocess.Popen(
        bundle.words("run", flags=("--pid-file", str(tmp_path / "pid"))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=manager.environment,
    ) as running:
        notify(written_pid(tmp_path / "pid"), b"STATUS=x\n", b"STATUS=y\nREADY=1\n", b"READY=1")
        expected = [b"READY=1\n", b"MAINPID=%d\n" % running.pid, b"BARRIER=1"]
        assert relayed(manager, running) == expected
        out, _ = running.communicate("\n", timeout=20)
    variable, mount = out.splitlines()
    assert variable == "/run/notify/notify.sock"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount.split()[3].split(","))
    assert running.returncode == 4
    assert not runtime.left()
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):  # nothing else is relayed
        manager.socket.recv(4096)


def detached(bundle: Bundle, manager: Manager, *, two_steps: bool) -> list[str]:
    """Return the command line that is to wait for the program's readiness."""
    if not two_steps:
        return bundle.words("run", flags=("--detach", "--pid-file", str(bundle.path / "pid")))
    bundle.create(env=manager.environment)
    words = bundle.words("start")
    return [word for word in words if word not in ("--bundle", str(bundle.path))]


@pytest.mark.parametrize("two_steps", [False, True], ids=["run --detach", "start"])
def test_a_detached_container_s_own_process_is_the_main_one(
    runtime: PrivateRuntime, manager: Manager, two_steps: bool
) -> None:
    bundle = runtime.bundle()
    words = detached(bundle, manager, two_steps=two_steps)
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=manager.environment,
        text=True,
    ) as starting:
        bundle.pid = written_pid(bundle.path / "pid")
        notify(bundle.pid, b"READY=1")
        expected = [b"READY=1\n", b"MAINPID=%d\n" % bundle.pid, b"BARRIER=1"]
        assert relayed(manager, starting) == expected
        assert starting.wait(20) == 0
    assert bundle.status() == "running"
    assert bundle.delete("--force").returncode == 0
    assert not runtime.left()


@pytest.mark.parametrize("two_steps", [False, True], ids=["run --detach", "start"])
def test_a_program_that_exits_before_it_is_ready_ends_the_wait(
    runtime: PrivateRuntime, manager: Manager, two_steps: bool
) -> None:
    bundle = runtime.bundle(script="exit 3")
    words = detached(bundle, manager, two_steps=two_steps)
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, env=manager.environment, timeout=20, check=False
    )
    assert done.returncode == 0
    assert bundle.status() == "stopped"
    assert bundle.delete().returncode == 0


def test_start_refuses_a_container_created_without_a_notify_socket(
    runtime: PrivateRuntime, manager: Manager
) -> None:
    with runtime.created() as bundle:
        done = bundle.command("start", bundle.id, env=manager.environment)
        assert done.returncode == 1
        assert f"container {bundle.id} was created without NOTIFY_SOCKET" in done.stderr
        assert bundle.status() == "created"


def test_a_manager_that_cannot_be_reached_is_a_warning(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "none")}
    done = runtime.bundle(script="exit 3").run(env=environment)
    assert done.returncode == 3
    assert "level=warning" in done.stderr
    assert f"NOTIFY_SOCKET: {tmp_path}/none: No such file or directory" in done.stderr


def test_another_kind_of_address_is_refused(runtime: PrivateRuntime) -> None:
    done = runtime.bundle().run(env={**os.environ, "NOTIFY_SOCKET": "vsock:2:1"})
    assert done.returncode == 1
    assert "'vsock:2:1' is not a Unix socket" in done.stderr
