"""CRIU's service process: one that ends, and one that answers nonsense, are one error."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.errors import JaulaError
from jaula.features.checkpoint.runtime import criu
from jaula.features.checkpoint.runtime.criu import Criu
from jaula.features.checkpoint.runtime.proto import rpc_pb2


def program(directory: Path, text: str) -> str:
    path = directory / "criu"
    path.write_text(f"#!{sys.executable}\nimport os, socket, sys\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_ends_at_once_is_one_error(tmp_path: Path) -> None:
    with Criu(program(tmp_path, "")) as service:
        time.sleep(0.5)
        with pytest.raises(JaulaError, match="criu ended"):
            service.version()


def test_a_program_that_ends_after_the_request_is_one_error(tmp_path: Path) -> None:
    text = "socket.socket(fileno=int(sys.argv[3])).recv(4096)"
    with Criu(program(tmp_path, text)) as service, pytest.raises(JaulaError, match="criu ended"):
        service.version()


def test_an_answer_that_is_not_a_message_is_one_error(tmp_path: Path) -> None:
    text = "s = socket.socket(fileno=int(sys.argv[3])); s.recv(4096); s.send(b'\\xff' * 20)"
    with Criu(program(tmp_path, text)) as service, pytest.raises(JaulaError, match="criu"):
        service.version()


@pytest.mark.parametrize(
    ("free", "reason"), [(1, "No space left on device"), (1 << 20, "it has crashed")]
)
def test_a_full_disk_is_the_reason_if_the_log_lacks_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, reason: str
) -> None:
    limit = "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self"
    (tmp_path / criu.LOG).write_text(f"(00.000001) {limit}\n")
    facts = types.SimpleNamespace(f_bfree=free, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: facts)
    options = rpc_pb2.Options(images_dir_fd=-1, images_dir=str(tmp_path))
    request = rpc_pb2.Request(type=rpc_pb2.DUMP, options=options)
    response = rpc_pb2.Response(type=rpc_pb2.DUMP, success=False, error_message=limit)
    assert criu._reason(request, response).startswith(f"criu cannot dump the container: {reason}")


CHILD = """
sock = socket.socket(fileno=int(sys.argv[3]))
sock.recv(4096)
os.set_inheritable(sock.fileno(), True)
child = os.fork()
if child == 0:
    open(sys.argv[0] + '.child', 'w').write(str(os.getpid()))
    import signal
    signal.pause()
open(sys.argv[0] + '.ready', 'w').close()
while True:
    {loop}
"""


def appears(path: Path) -> Path:
    deadline = time.monotonic() + 30
    while not path.exists() or (path.suffix == ".child" and not path.read_text()):
        assert time.monotonic() < deadline, path
        time.sleep(0.005)
    return path


def dies(pid: int) -> bool:
    """Wait until a killed process is dead."""
    deadline = time.monotonic() + 30
    while not criu._is_dead(pid):
        assert time.monotonic() < deadline, pid
        time.sleep(0.005)
    return True


class Interrupted:
    """A request to a service process with a child that holds its socket."""

    def __init__(self, directory: Path, loop: str = "os.waitpid(child, 0)") -> None:
        self._program = program(directory, CHILD.format(loop=loop))
        self.failures: list[BaseException] = []
        self.service = Criu(self._program)
        self._thread = threading.Thread(target=self._request, daemon=True)
        self._thread.start()
        appears(Path(f"{self._program}.ready"))
        self.child = int(appears(Path(f"{self._program}.child")).read_text())

    def _request(self) -> None:
        try:
            self.service.version()
        except JaulaError as error:
            self.failures.append(error)

    def wait(self) -> str:
        """Wait for the end of the request; return its error."""
        self._thread.join(30)
        assert not self._thread.is_alive(), "the request has no answer"
        (failure,) = self.failures
        return str(failure)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        self.service.__exit__()


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[Interrupted]:
    made = Interrupted(tmp_path)
    yield made
    made.end()


def test_a_killed_service_is_one_error_while_a_child_holds_its_socket(
    interrupted: Interrupted,
) -> None:
    interrupted.service.kill()
    assert "criu was killed" in interrupted.wait()


def test_a_stopped_service_is_killed(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criu, "_STOPPED_TIMEOUT", 1.0)
    os.kill(interrupted.service.pid, signal.SIGSTOP)
    assert "stopped" in interrupted.wait()
    assert dies(interrupted.service.pid)
    assert dies(interrupted.child)


def test_a_service_that_waits_for_a_stopped_child_is_killed(
    interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criu, "_STALL_TIMEOUT", 1.0)
    os.kill(interrupted.child, signal.SIGSTOP)
    assert "has done nothing" in interrupted.wait()
    assert dies(interrupted.child)


def test_a_service_that_works_is_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criu, "_STALL_TIMEOUT", 1.5)
    loop = "sum(range(100000)) if time.monotonic() < end else sock.close() or os._exit(0)"
    text = CHILD.replace("while True", "import time; end = time.monotonic() + 5\nwhile True")
    monkeypatch.setattr(sys.modules[__name__], "CHILD", text)
    made = Interrupted(tmp_path, loop)
    try:
        assert "criu was killed" in made.wait()  # it has exited by itself
    finally:
        made.end()


def test_a_wait_for_another_socket_ends_with_the_service(interrupted: Interrupted) -> None:
    ours, theirs = socket.socketpair()
    end_of_patience = threading.Timer(20, theirs.shutdown, (socket.SHUT_RDWR,))
    with ours, theirs:
        end_of_patience.start()
        interrupted.service.kill()
        try:
            assert interrupted.service.wait_for(ours) is False
        finally:
            end_of_patience.cancel()
            end_of_patience.join()
    assert "criu was killed" in interrupted.wait()


def test_a_service_without_a_child_can_be_stopped_at_its_end(tmp_path: Path) -> None:
    text = "s = socket.socket(fileno=int(sys.argv[3])); s.recv(4096); import signal; signal.pause()"
    with Criu(program(tmp_path, text)) as service:
        os.kill(service.pid, signal.SIGSTOP)
    assert criu._is_dead(service.pid)
