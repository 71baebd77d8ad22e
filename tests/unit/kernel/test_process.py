"""Processes: a kill on a condition, an execve that happened, names of open files."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from harness import deep_directory
from jaula.kernel import process_calls


def _absent(pid: int) -> bool:
    raise FileNotFoundError(pid)


def test_kill_if_sends_the_signal_only_when_the_condition_holds() -> None:
    with subprocess.Popen(("sleep", "60")) as sleeping:
        assert not process_calls.kill_if(sleeping.pid, lambda pid: pid != sleeping.pid)
        assert not process_calls.kill_if(sleeping.pid, _absent)
        assert sleeping.poll() is None
        assert process_calls.kill_if(sleeping.pid, lambda pid: pid == sleeping.pid)
        assert sleeping.wait(10) == -signal.SIGKILL


def test_kill_if_does_not_ask_for_a_process_that_has_exited() -> None:
    exited = subprocess.Popen(("true",))
    exited.wait(10)
    assert not process_calls.kill_if(exited.pid, lambda _: pytest.fail("the pid was checked"))


def test_a_process_that_exits_before_execve_is_told_from_one_that_executed() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not process_calls.executed(pid)
    os.waitpid(pid, 0)
    assert process_calls.executed(pid)  # reaped: not known
    with subprocess.Popen(("sleep", "60")) as sleeping:
        assert process_calls.executed(sleeping.pid)
        sleeping.kill()


def test_the_name_of_an_open_file_is_empty_if_it_is_longer_than_a_page(tmp_path: Path) -> None:
    with deep_directory.opened(tmp_path) as deep, open("/dev/null") as null:
        assert process_calls.fd_name(os.getpid(), deep) == ""
        assert process_calls.fd_name("self", null.fileno()) == "/dev/null"
    with pytest.raises(FileNotFoundError):
        process_calls.fd_name("self", deep)
