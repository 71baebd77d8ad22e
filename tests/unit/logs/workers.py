"""Processes that work for a log's writer, on a busy machine."""

from __future__ import annotations

import os

import pytest

from jaula.logs.helper import HelperProcess


def end_when_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a process that is killed end before its writer waits for it.

    A busy machine may take longer for that than a writer waits in a test.
    """
    kill = HelperProcess.kill

    def kill_and_wait(worker: HelperProcess) -> None:
        kill(worker)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(HelperProcess, "kill", kill_and_wait)
