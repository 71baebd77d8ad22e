"""The fork server of sandboxed processes: what it holds, and its end at every moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.containers import eventually
from jaula.errors import Unavailable
from jaula.sandbox import fork_server, sandbox_worker
from jaula.sandbox.fork_server import ForkServer
from jaula.sandbox.sandbox_worker import Worker, WorkerEnded
from jaula.sandbox.start_sandbox import Task

ECHO = Task("jaula-test", "the test's bytes", "harness.sandboxed:echo")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    found = ForkServer()
    monkeypatch.setattr(sandbox_worker, "SERVER", found)
    yield found
    found.end_idle()


def _parent(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    raise AssertionError


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _held(pid: int) -> set[str]:
    names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return {name.split(":")[0] for name in names}


def test_processes_of_several_threads_have_one_parent(server: ForkServer) -> None:
    def call(number: int) -> tuple[int, bytes]:
        with Worker(ECHO) as each:
            parent = _parent(each.pid)
            return parent, each.call(b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(call, range(40)))
    assert [payload for _, payload in found] == [b"%d" % number for number in range(40)]
    assert len({parent for parent, _ in found}) == 1


def test_the_server_holds_no_channel_and_is_killed_first(server: ForkServer) -> None:
    with Worker(ECHO) as each:
        each.call(b"")
        parent = _parent(each.pid)
        assert Path(f"/proc/{parent}/comm").read_text(encoding="ascii").strip() == fork_server.NAME
        for pid in (parent, each.pid):
            assert Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii").strip() == "800"
        sockets = [fd for fd in os.listdir(f"/proc/{parent}/fd") if _is_socket(parent, fd)]
        assert len(sockets) == 2  # the engine's, and that for the reports of this process
        assert _held(each.pid) == {"socket", "/dev/null"}
    eventually(
        lambda: sum(_is_socket(parent, fd) for fd in os.listdir(f"/proc/{parent}/fd")) == 1,
        "the socket for the reports is closed",
    )


def _is_socket(pid: int, fd: str) -> bool:
    return os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")


def test_a_host_with_little_memory_has_room_for_the_server(server: ForkServer) -> None:
    """The kernel refuses to map more than the host has."""
    with Worker(ECHO) as each:
        status = Path(f"/proc/{_parent(each.pid)}/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmPeak:"))
    assert int(peak.split()[1]) < 200 << 10  # kB


def test_a_killed_server_ends_its_processes_and_the_next_request_starts_another(
    server: ForkServer,
) -> None:
    with Worker(ECHO) as each:
        each.call(b"")
        parent = _parent(each.pid)
        os.kill(parent, signal.SIGKILL)
        eventually(lambda: not _exists(each.pid), "the kernel has killed the process")
        with pytest.raises(Unavailable, match="was killed"):
            each.call(b"")
        with Worker(ECHO) as next_one:
            assert next_one.call(b"x") == b"x"
            assert _parent(next_one.pid) != parent
    assert not _exists(parent)


def test_a_stopped_server_is_replaced(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_REPLY", 1.0)
    with Worker(ECHO) as each:
        parent = _parent(each.pid)
    os.kill(parent, signal.SIGSTOP)
    with Worker(ECHO) as each:
        assert each.call(b"x") == b"x"
        assert _parent(each.pid) != parent
    assert not _exists(parent)


def test_a_server_that_is_killed_at_any_moment_fails_no_start(server: ForkServer) -> None:
    with Worker(ECHO) as each:
        parents = [_parent(each.pid)]
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.013):
            for pid in list(parents):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    parents.remove(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcomes = []
        for _ in range(40):
            try:
                with Worker(ECHO) as each:
                    parents.append(_parent(each.pid))
                    outcomes.append(each.call(b"x"))
            except (Unavailable, FileNotFoundError):  # killed during the call
                outcomes.append(b"killed")
            except WorkerEnded as error:  # killed between the two parts of its answer
                outcomes.append(
                    b"killed" if "a frame is cut" in str(error) else str(error).encode()
                )
    finally:
        stop.set()
        killer.join()
    assert set(outcomes) <= {b"x", b"killed"}
    with Worker(ECHO) as each:
        assert each.call(b"x") == b"x"


def test_a_server_ends_some_time_after_its_last_process(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "LINGER", 0.5)
    with Worker(ECHO) as first:
        parent = _parent(first.pid)
    with Worker(ECHO) as second:
        assert _parent(second.pid) == parent
        time.sleep(1)
        assert _exists(parent)
    eventually(lambda: not _exists(parent), "the server has ended")
    with Worker(ECHO) as third:
        assert third.call(b"x") == b"x"


def test_server_and_processes_end_with_their_user() -> None:
    program = (
        "import sys, os, signal\n"
        f"sys.path[:0] = {[path for path in sys.path if path]!r}\n"
        "from jaula.sandbox.start_sandbox import Task\n"
        "from jaula.sandbox.sandbox_worker import Worker\n"
        f"worker = Worker(Task(*{tuple(ECHO)!r}))\n"
        "worker.call(b'')\n"
        "print(worker.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdin is not None
    assert user.stdout is not None
    pid = int(user.stdout.readline())
    parent = _parent(pid)
    user.kill()
    user.wait()
    user.stdin.close()
    user.stdout.close()
    eventually(lambda: not _exists(pid) and not _exists(parent), "both have ended")
