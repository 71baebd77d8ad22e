"""The helper of a start, which begins before its shim lets it proceed."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any, cast

import pytest

from jaula.errors import RuntimeFailure
from jaula.runtime import seqpacket
from jaula.runtime.create.clone_process import ProcessHandle
from jaula.runtime.interfaces import Interfaces
from jaula.runtime.shim import shim
from jaula.runtime.shim_protocol import ExecRequest, LogSetup, StartRequest, decode_shim_request
from jaula.spec.rootfs import DirectoryRoot
from jaula.spec.runtime_spec import Process

REQUEST = StartRequest("c", "/bundle", "/run", DirectoryRoot("/"), LogSetup("none", {}, ""))
NO_INTERFACES = cast(Interfaces, None)


@pytest.fixture
def helper() -> shim.SpawnHelper:
    helper = shim.SpawnHelper()
    helper.timeout = 10.0
    return helper


def begin(helper: shim.SpawnHelper, monkeypatch: pytest.MonkeyPatch, create: Any) -> None:
    monkeypatch.setattr(shim, "create_container", lambda _r, _f, _i, proceed: create(proceed))
    helper.begin(REQUEST, [], NO_INTERFACES)


def test_no_process_is_created_before_the_shim_lets_it(
    helper: shim.SpawnHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()

    def create(proceed: Any) -> ProcessHandle:
        os.write(write_end, b"1")
        proceed()
        os.write(write_end, b"2")
        return ProcessHandle(7)

    begin(helper, monkeypatch, create)
    assert os.read(read_end, 1) == b"1"
    os.set_blocking(read_end, False)
    with pytest.raises(BlockingIOError):
        os.read(read_end, 1)
    assert helper.create().pid == 7
    assert os.read(read_end, 1) == b"2"
    helper.wait()


@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["before", "after it may proceed"])
def test_a_failure_before_it_may_proceed_is_reported(
    helper: shim.SpawnHelper, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    """A message that the helper leaves unread resets the socket, and must not hide the report."""

    def create(_: Any) -> ProcessHandle:
        time.sleep(pause)
        raise RuntimeFailure("no such layer", exit_code=127)

    def wait_until_exited(_: object = None) -> None:
        os.waitid(os.P_PID, helper._helper, os.WEXITED | os.WNOWAIT)

    begin(helper, monkeypatch, create)
    monkeypatch.setattr(helper, "_wait_for_report", wait_until_exited)
    if not pause:
        wait_until_exited()
    with pytest.raises(RuntimeFailure, match="no such layer") as caught:
        helper.create()
    assert caught.value.exit_code == 127
    helper.wait()


def test_a_killed_helper_is_noticed(
    helper: shim.SpawnHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(helper, monkeypatch, lambda _: time.sleep(60))
    os.kill(helper._helper, signal.SIGSTOP)
    os.kill(helper._helper, signal.SIGKILL)
    with pytest.raises(shim.HelperKilled):
        helper.create()
    helper.wait()


def test_a_helper_whose_start_is_given_up_undoes_its_part(
    helper: shim.SpawnHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()

    def create(proceed: Any) -> ProcessHandle:
        try:
            proceed()
        except RuntimeFailure:
            os.write(write_end, b"undone")
            raise
        raise AssertionError

    begin(helper, monkeypatch, create)
    assert helper.cancel()
    assert os.read(read_end, 10) == b"undone"
    assert helper.cancel()  # nothing is left to give up


def test_a_helper_that_hangs_is_killed(
    helper: shim.SpawnHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper.timeout = 0.2
    begin(helper, monkeypatch, lambda _: time.sleep(60))
    pid = helper._helper
    assert not helper.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def spare_child(helper: shim.SpawnHelper, work: Any) -> int:
    """Prepare the helper of an exec, and return its pid."""
    before = set(shim._children())
    helper.prepare_exec(work)
    (pid,) = shim._children() - before
    return pid


def served(sock: Any) -> ProcessHandle:
    """Return the number of the request as a pid."""
    data, _ = seqpacket.receive(sock)
    request = decode_shim_request(data)
    assert isinstance(request, ExecRequest)
    return ProcessHandle(request.number)


EXEC = ExecRequest(42, "e1", Process("/"))


def other() -> ProcessHandle:
    return ProcessHandle(7)


def test_a_spare_helper_serves_one_exec(helper: shim.SpawnHelper) -> None:
    pid = spare_child(helper, served)
    helper.wait()  # ends helpers that have reported only
    assert helper.has_spare
    assert not is_subreaper()
    assert helper.execute(EXEC, other).pid == 42
    assert is_subreaper(), "the process that it has created must become a child"
    helper.wait()
    assert not is_subreaper()
    assert pid not in shim._children()
    assert helper.execute(EXEC, other).pid == 7, "there is no spare helper"
    helper.wait()


@pytest.mark.parametrize("failure", ["killed", "raises"])
def test_an_exec_needs_no_spare_helper(helper: shim.SpawnHelper, failure: str) -> None:
    def work(sock: Any) -> ProcessHandle:
        if failure == "raises":
            raise RuntimeFailure("no cgroup")
        return served(sock)

    pid = spare_child(helper, work)
    if failure == "killed":
        os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert helper.execute(EXEC, other).pid == 7
    helper.wait()
    assert pid not in shim._children()


def test_other_work_and_the_end_of_the_shim_end_a_spare_helper(helper: shim.SpawnHelper) -> None:
    for end in (helper.end_spare, lambda: helper.run(other)):
        pid = spare_child(helper, served)
        end()
        assert not helper.has_spare
        assert pid not in shim._children()
        helper.wait()


def is_subreaper() -> bool:
    value = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(37, ctypes.byref(value))  # PR_GET_CHILD_SUBREAPER
    return bool(value.value)
