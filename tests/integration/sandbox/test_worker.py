"""The contract of a sandboxed process, read back from the kernel."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from harness import sandboxed
from jaula.errors import InvalidRequest, Unavailable
from jaula.kernel import landlock
from jaula.sandbox.sandbox_limits import Limits, Rights
from jaula.sandbox.sandbox_worker import Answer, Worker, WorkerCancelled, WorkerEnded
from jaula.sandbox.start_sandbox import Task

MIB = 1 << 20


def _worker(
    name: str,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    answer: Answer | None = None,
    rights: Rights = Rights(),  # noqa: B008 - frozen
) -> Worker:
    task = Task("jaula-test", "the test's bytes", f"harness.sandboxed:{name}")
    return Worker(task, limits, answer, rights=rights)


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {k: v.strip() for k, _, v in (line.partition(":") for line in file)}


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_process_has_no_id_capability_or_way_to_gain_one() -> None:
    with _worker("echo") as worker:
        worker.call(b"")
        status = _status(worker.pid)
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert status["Groups"] == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Threads"] == "1"


def test_the_process_holds_only_its_channel_and_what_was_handed_over() -> None:
    secret = os.open("/etc/shadow", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        with _worker("echo") as worker:
            worker.call(b"")
            held = {
                os.readlink(f"/proc/{worker.pid}/fd/{fd}")
                for fd in os.listdir(f"/proc/{worker.pid}/fd")
            }
    finally:
        os.close(secret)
    assert len([name for name in held if name.startswith("socket:")]) == 1
    assert {name for name in held if not name.startswith("socket:")} == {"/dev/null"}


def test_the_process_cannot_be_traced_by_another_of_its_user() -> None:
    with _worker("echo") as worker:
        worker.call(b"")
        owner = os.stat(f"/proc/{worker.pid}/mem").st_uid  # root's: the process is not dumpable
    assert owner == 0


@pytest.mark.parametrize("name", sandboxed.ATTEMPTS)
def test_the_filter_refuses(name: str) -> None:
    with _worker("attempt") as worker:
        results = json.loads(worker.call(json.dumps([name]).encode()))
    expected = (errno.ENOENT,) if name == "stat" else (errno.EPERM, errno.ENOSYS)
    assert results[name] in expected, results


def test_landlock_refuses_files_that_the_filter_would_allow() -> None:
    rights = Rights(calls=("files",))
    with _worker("attempt", rights=rights) as worker:
        names = ["open", "write", "list", "open /proc/self/mem"]
        results = json.loads(worker.call(json.dumps(names).encode()))
    assert results == dict.fromkeys(names, errno.EACCES)


def test_landlock_allows_only_the_paths_of_the_rights() -> None:
    rights = Rights(calls=("files",), read=("/etc/passwd",))
    with _worker("attempt", rights=rights) as worker:
        results = json.loads(worker.call(b'["open", "list"]'))
    assert results == {"open": 0, "list": errno.EACCES}


def test_landlock_refuses_ports_that_the_filter_would_allow() -> None:
    rights = Rights(calls=("socket", "connect"))
    with socket.create_server(("127.0.0.1", 0)) as server, _worker("connect", rights=rights) as one:
        result = one.call(json.dumps([socket.AF_INET, server.getsockname()]).encode())
    assert int(result) == errno.EACCES


@pytest.mark.skipif(
    not landlock.supported_rights(landlock.abi_version()).scoped, reason="needs Linux 6.12"
)
def test_landlock_refuses_abstract_sockets_that_the_filter_would_allow() -> None:
    rights = Rights(calls=("socket", "connect"))
    with (
        socket.socket(socket.AF_UNIX) as server,
        _worker("connect", rights=rights) as one,
    ):
        server.bind(f"\0jaula-test-{os.getpid()}")
        server.listen()
        name = server.getsockname().decode()
        result = one.call(json.dumps([socket.AF_UNIX, name]).encode())
    assert int(result) == errno.EPERM


CONFINED = """
import os
from jaula.sandbox import sandbox_confinement as confinement
from jaula.sandbox.sandbox_limits import Limits, Rights
confinement.enter((os.getuid(), os.getgid()), Limits(), Rights())
os.write(1, b"confined")
os.read(0, 1)
"""


def test_a_process_of_an_ordinary_user_cannot_be_traced_by_another_of_its_user() -> None:
    """It keeps its ids, so only prctl(2) makes it not dumpable."""
    words = (sys.executable, "-c", CONFINED)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, user=54321, group=54321, extra_groups=[], cwd="/", **pipes) as one:
        assert one.stdout is not None
        assert one.stdout.read(8) == b"confined"
        assert _status(one.pid)["Uid"].split() == ["54321"] * 4
        assert os.stat(f"/proc/{one.pid}/mem").st_uid == 0


def test_a_descriptor_is_handed_over_with_a_call() -> None:
    fd = os.memfd_create("bytes")
    try:
        os.write(fd, b"content")
        with _worker("echo") as worker:
            assert worker.call(b"the ", [fd]) == b"the content"
            assert worker.call(b"again") == b"again"
    finally:
        os.close(fd)


def test_a_query_is_answered_with_bytes_and_descriptors() -> None:
    def answer(query: bytes) -> tuple[bytes, list[int]]:
        if query == b"absent":
            raise FileNotFoundError(errno.ENOENT, "no such file")
        fd = os.memfd_create("answer")
        os.write(fd, b"content")
        return b"the ", [fd]

    with _worker("echo"):  # the fork server stays, and its socket
        before = len(os.listdir("/proc/self/fd"))
        with _worker("relay", answer=answer) as worker:
            assert worker.call(b"present") == b"the content"
            assert worker.call(b"absent") == b"errno %d" % errno.ENOENT
        assert len(os.listdir("/proc/self/fd")) == before


def test_memory_is_bounded() -> None:
    with _worker("allocate", Limits(memory=64 * MIB)) as worker:
        assert worker.call(b"%d" % (32 * MIB)) == b"%d" % (32 * MIB)
        with pytest.raises(
            InvalidRequest, match="the test's bytes takes more than 64 MiB of memory"
        ):
            worker.call(b"%d" % (96 * MIB))


def test_processor_time_is_bounded() -> None:
    with (
        _worker("spin", Limits(processor=1)) as worker,
        pytest.raises(InvalidRequest, match="more than 1 seconds of processor time"),
    ):
        worker.call(b"")


def test_the_clock_is_bounded() -> None:
    with _worker("sleep", Limits(patience=1)) as worker:
        with pytest.raises(InvalidRequest, match="more than 1 seconds"):
            worker.call(b"")
        assert worker._process.wait(30) != 0


def test_the_result_is_bounded() -> None:
    with _worker("produce", Limits(result=MIB)) as worker:
        assert worker.call(b"%d" % MIB) == bytes(MIB)
        with pytest.raises((InvalidRequest, WorkerEnded), match=r"result of|of at most"):
            worker.call(b"%d" % (MIB + 1))


@pytest.mark.parametrize("name", ["spin", "sleep"])
def test_the_process_ends_with_its_request(name: str) -> None:
    with _worker(name) as worker:
        pid = worker.pid
        timer = threading.Timer(0.2, worker.cancel)
        timer.start()
        with pytest.raises(WorkerCancelled):
            worker.call(b"")
        timer.join()
    assert _gone(pid)


def test_the_process_ends_with_its_context() -> None:
    with _worker("echo") as worker:
        pid = worker.pid
    assert _gone(pid)
    worker.cancel()  # of a request whose work is over: nothing happens


def test_a_process_without_an_engine_ends() -> None:
    worker = _worker("echo")
    try:
        worker.call(b"")
        worker._socket.close()  # as the end of the engine does
        assert worker._process.wait(30) == 0
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash", "ended by signal 11"),
        ("leave", "exited with 7"),
        ("fail", r"KeyError: 'unexpected"),
        ("import_more", "wave"),
    ],
)
def test_a_failure_of_the_parser_is_one_clear_error(name: str, reason: str) -> None:
    with _worker(name) as worker, pytest.raises(WorkerEnded, match=reason) as raised:
        worker.call(b"")
    assert "the process that reads the test's bytes has failed" in str(raised.value)
    assert str(raised.value).isprintable()


def test_an_error_of_the_parser_reaches_the_client_in_printable_form() -> None:
    with _worker("refuse") as worker:
        with pytest.raises(InvalidRequest) as raised:
            worker.call(b"line 7 is not valid \x1b[31m")
        assert raised.value.message == "line 7 is not valid ?[31m"
        assert raised.value.hint == "a hint?[2J"
        with pytest.raises(InvalidRequest, match="again"):
            worker.call(b"again")


def test_the_stack_grows_after_the_last_page_of_memory_is_used() -> None:
    with _worker("fill_and_recurse", Limits(memory=32 * MIB)) as worker:
        assert worker.call(b"") == b"refused"


@pytest.mark.parametrize("size", [0, 64, 1000])
def test_a_hash_without_memory_is_the_error_of_the_limit(size: int) -> None:
    for _ in range(8):  # the failing allocation differs from one process to the next
        with (
            _worker("hash_until_full", Limits(memory=16 * MIB)) as worker,
            pytest.raises(InvalidRequest, match="more than 16 MiB of memory"),
        ):
            worker.call(b"x" * size)


def test_endless_recursion_is_an_error_of_the_content() -> None:
    with _worker("recurse") as worker, pytest.raises(InvalidRequest, match="nested too deeply"):
        worker.call(b"")


def _frame(kind: bytes, length: int, payload: bytes = b"") -> bytes:
    return struct.pack("!cI", kind, length) + payload


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(_frame(b"R", 0xFFFFFFFF), id="length"),
        pytest.param(_frame(b"Z", 1, b"x"), id="kind"),
        pytest.param(_frame(b"C", 0), id="call"),
        pytest.param(_frame(b"Q", 1, b"x"), id="query that is not answered"),
        pytest.param(_frame(b"F", 3, b"{]x"), id="failure"),
        pytest.param(_frame(b"F", 18, b'["SystemExit",1,2]'), id="failure of other types"),
        pytest.param(_frame(b"F", 27, b'["RuntimeFailure","x",null]'), id="class of the engine"),
    ],
)
def test_a_forged_answer_is_refused(forged: bytes) -> None:
    with _worker("forge", Limits(patience=30)) as worker, pytest.raises(WorkerEnded):
        worker.call(forged)


def test_an_answer_that_trickles_is_bounded_by_the_clock() -> None:
    with (
        _worker("forge", Limits(patience=1)) as worker,
        pytest.raises(InvalidRequest, match="more than 1 seconds"),
    ):
        worker.call(_frame(b"R", 100, b"x"))


def test_a_module_that_is_absent_is_named() -> None:
    with pytest.raises(Unavailable, match=r"cannot start: .*No module named 'jaula.absent'"):
        Worker(Task("jaula-test", "bytes", "jaula.absent:main"))


def test_many_processes_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with _worker("echo"):  # the fork server stays, and its socket
        before = len(os.listdir("/proc/self/fd")) - 3
    calls: list[Callable[[], bytes]] = []
    for name in ("echo", "crash", "leave"):
        with _worker(name) as worker:
            try:
                worker.call(b"x")
            except WorkerEnded:
                calls.append(lambda: b"")
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(calls) == 2
