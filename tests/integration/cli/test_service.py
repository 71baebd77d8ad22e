"""A container as a service: messages to the service manager, sockets, watchdog, exit status."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness.engine import PROJECT, PrivateEngine
from harness.service_manager import ServiceManager

SOURCE = PROJECT / "tests" / "harness" / "service_program.c"
ENDS_AT_TERM = ("sh", "-c", "trap 'exit 7' TERM; sleep 60 & wait")
SECONDS = 30.0

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "service"
    subprocess.run(["gcc", "-O1", "-static", "-o", path, SOURCE], check=True)
    path.parent.chmod(0o755)
    return path


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify") as running:
        yield running


@pytest.fixture
def start(engine: PrivateEngine, busybox: str, manager: ServiceManager) -> Iterator[Start]:
    """Return a function that runs a command of the client as the main process of a service."""
    processes: list[subprocess.Popen[str]] = []

    def begin(
        *words: str, sockets: tuple[socket.socket, ...] = (), **variables: str
    ) -> subprocess.Popen[str]:
        command = [str(PROJECT / "jaula"), "--host", engine.host, *words]
        environment = manager.environment(**variables)
        if sockets:
            environment |= {"LISTEN_FDS": str(len(sockets))}
            command = ["sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *command]

        def place() -> None:
            high = [os.dup2(os.dup(s.fileno()), 200 + n) for n, s in enumerate(sockets)]
            for number, fd in enumerate(high):
                os.dup2(fd, 3 + number)
            os.closerange(3 + len(high), 300)

        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **({"preexec_fn": place, "close_fds": False} if sockets else {}),
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
        ended = process.returncode != -signal.SIGKILL
        assert not (ended and os.path.exists(f"/run/jaula-notify-{process.pid}"))


def test_the_client_is_ready_when_the_container_runs_and_ends_with_its_status(
    start: Start, manager: ServiceManager, busybox: str
) -> None:
    process = start("run", "--rm", "--sdnotify=conmon", busybox, *ENDS_AT_TERM)
    assert manager.expect("READY=1")
    assert manager.value("MAINPID") == str(process.pid)
    assert set(manager.senders) == {process.pid}
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 7


def test_a_detached_client_leaves_a_process_that_supervises_the_container(
    start: Start, manager: ServiceManager, busybox: str
) -> None:
    process = start("run", "-d", "--rm", "--sdnotify=conmon", busybox, *ENDS_AT_TERM)
    assert manager.expect("READY=1")
    main = int(manager.value("MAINPID"))
    assert main != process.pid
    manager.read(0.5)  # the barrier
    assert process.wait(SECONDS) == 0
    os.kill(main, signal.SIGTERM)
    pidfd = os.pidfd_open(main) if Path(f"/proc/{main}").exists() else -1
    if pidfd >= 0:
        from jaula.kernel.poll import readable

        assert readable(SECONDS, pidfd)
        os.close(pidfd)


def test_the_program_sends_its_own_messages_and_nothing_about_the_host(
    start: Start, manager: ServiceManager, program: Path, busybox: str
) -> None:
    process = start(
        *("run", "--rm", "--sdnotify=container", "-v", f"{program}:/service:ro"),
        *("--user", "1000", busybox, "/service"),
        "STATUS=loads\nMAINPID=1\nFDSTORE=1\nREADY=1",
        *("ping", "exit=3"),
        WATCHDOG_USEC="5000000",
    )
    assert manager.expect("READY=1")
    assert manager.expect("WATCHDOG=1")
    while process.poll() is None:
        manager.read(0.1)
    assert process.wait(SECONDS) == 3
    manager.read(0.2)
    assert "STATUS=loads" in manager.messages
    assert manager.value("MAINPID") == str(process.pid)
    assert not any(message.startswith("FDSTORE") for message in manager.messages)


def test_a_healthy_container_is_ready_and_an_unhealthy_one_sends_no_sign_of_life(
    start: Start, manager: ServiceManager, busybox: str
) -> None:
    process = start(
        *("run", "--rm", "--sdnotify=healthy", "--health-cmd", "test ! -e /sick"),
        *("--health-interval", "100ms", "--health-retries", "1", "--health-start-period", "0s"),
        *("--init", busybox, "sh", "-c", "sleep 2; touch /sick; sleep 60"),
        WATCHDOG_USEC="400000",
    )
    assert manager.expect("READY=1")
    assert manager.expect("WATCHDOG=1")
    manager.read(4.0)
    manager.messages.clear()
    manager.read(1.5)
    assert "WATCHDOG=1" not in manager.messages
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 143


def test_a_container_without_a_health_check_cannot_become_healthy(
    start: Start, manager: ServiceManager, busybox: str, jaula: Callable[..., object]
) -> None:
    process = start("run", "--name", "nocheck", "--rm", "--sdnotify=healthy", busybox, "true")
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 125
    assert "needs a health check" in output
    assert manager.messages == []
    assert jaula("inspect", "nocheck").returncode == 1  # type: ignore[attr-defined]


def test_the_client_is_as_alive_as_the_container(
    start: Start, manager: ServiceManager, busybox: str
) -> None:
    process = start(
        *("run", "--rm", "--sdnotify=conmon", busybox, *ENDS_AT_TERM), WATCHDOG_USEC="200000"
    )
    assert manager.expect("WATCHDOG=1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 7


def test_a_container_that_exists_is_started_as_a_service(
    start: Start, manager: ServiceManager, busybox: str, jaula: Callable[..., object]
) -> None:
    jaula("create", "--name", "exists", busybox, *ENDS_AT_TERM)
    process = start("start", "--attach", "--sdnotify=conmon", "exists")
    assert manager.expect("READY=1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 7
    jaula("rm", "exists")


def test_the_status_is_known_after_a_restart_of_the_engine(
    new_engine: Callable[..., PrivateEngine], manager: ServiceManager
) -> None:
    """The container is removed before the client can ask the new engine."""
    private = new_engine()
    load_image(private, "busybox")
    process = subprocess.Popen(
        [
            *(str(PROJECT / "jaula"), "--host", private.host, "run", "--rm"),
            *("--sdnotify=conmon", "busybox", *ENDS_AT_TERM),
        ],
        env=manager.environment(),
    )
    assert manager.expect("READY=1")
    private.stop()
    private.start()
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 7


def test_no_service_manager_and_a_mode_that_is_unknown(
    start: Start, manager: ServiceManager, busybox: str
) -> None:
    alone = start("run", "--rm", "--sdnotify=conmon", busybox, "true", NOTIFY_SOCKET="")
    assert alone.wait(SECONDS) == 0
    process = start("run", "--rm", "--sdnotify=often", busybox, "true")
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 125
    assert "must be one of conmon, container, healthy, ignore" in output
    gone = start("run", "--rm", "--sdnotify=conmon", busybox, "true", NOTIFY_SOCKET="/absent")
    assert gone.wait(SECONDS) == 125


# -- sockets -------------------------------------------------------------------------------------


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[tuple[socket.socket, ...]]:
    with socket.socket() as inet, socket.socket(socket.AF_UNIX) as unix:
        inet.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "socket"))
        for sock in (inet, unix):
            sock.listen()
        yield inet, unix


@pytest.mark.parametrize("flags", [(), ("--init",), ("--user", "1000"), ("--network", "none")])
def test_a_program_serves_the_sockets_of_its_service(
    start: Start,
    program: Path,
    busybox: str,
    sockets: tuple[socket.socket, ...],
    flags: tuple[str, ...],
) -> None:
    process = start(
        *("run", "--rm", *flags, "-v", f"{program}:/service:ro", busybox, "/service", "serve"),
        sockets=sockets,
        LISTEN_FDNAMES="web:control",
    )
    for number, sock in enumerate(sockets):
        with socket.socket(sock.family) as client:
            client.settimeout(SECONDS)
            client.connect(sock.getsockname())
            assert client.recv(100) == f"{number} of web:control\n".encode()
    assert process.wait(SECONDS) == 0


def test_what_is_not_a_socket_is_refused(
    start: Start, busybox: str, jaula: Callable[..., object]
) -> None:
    """A descriptor of a directory would lead out of the container."""
    directory = os.open("/", os.O_RDONLY)

    class Directory:
        def fileno(self) -> int:
            return directory

    process = start(
        *("run", "--name", "escape", "--rm", busybox, "ls", "/proc/self/fd/3/"),
        sockets=(Directory(),),
    )
    output, _ = process.communicate(timeout=SECONDS)
    os.close(directory)
    assert process.returncode == 125
    assert "descriptor 0 is not a socket" in output
    assert jaula("inspect", "escape").returncode == 1  # type: ignore[attr-defined]


def test_sockets_are_for_one_start(
    start: Start, busybox: str, sockets: tuple[socket.socket, ...]
) -> None:
    process = start("run", "--restart", "always", busybox, "true", sockets=sockets)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 125
    assert "the sockets are for one start" in output


def test_descriptors_of_a_container_that_never_starts_are_closed(
    engine: PrivateEngine, busybox: str, jaula: Callable[..., object]
) -> None:
    identity = jaula("create", busybox, "true").stdout.strip()  # type: ignore[attr-defined]
    assert engine.process is not None
    for fds, answer in (([0], b"not a socket"), ([], b"no descriptors")):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SECONDS)
            client.connect(str(engine.socket))
            head = (
                f"POST /v1.48/containers/{identity}/descriptors HTTP/1.1\r\nHost: x\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
            )
            client.sendall(head.encode())
            assert re.match(rb"HTTP/1.1 101 ", client.recv(4096))
            socket.send_fds(client, [b"\0"], fds)
            assert answer in client.recv(4096)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        client.sendall(head.encode())
        client.recv(4096)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(client, [b"\0"], [theirs.fileno()])
            assert client.recv(4096) == b"ok\n"
            theirs.close()
            jaula("rm", identity)
            ours.settimeout(SECONDS)
            assert ours.recv(1) == b""  # the engine has no copy any more
