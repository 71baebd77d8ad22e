"""The helper process of a log writer: what it holds, and how its writer learns of its end."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from jaula.kernel import process_calls
from jaula.logs.helper import HelperProcess


def end(helper: HelperProcess) -> bool:
    """Wait for the end of a helper, and return whether it has succeeded."""
    try:
        assert helper.exited(10)
        return helper.succeeded
    finally:
        helper.close()


def test_a_helper_holds_what_it_keeps_only(tmp_path: Path) -> None:
    """Its writer is a shim, which has terminals, sockets of engines and the container's cgroup."""
    kept = os.open(tmp_path / "held", os.O_RDWR | os.O_CREAT, 0o600)
    other = os.open("/etc/shadow", os.O_RDONLY)

    def work() -> None:
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}"):
                os.write(kept, os.readlink(f"/proc/self/fd/{fd}").encode() + b"\n")

    try:
        assert end(HelperProcess(work, (kept,)))
        held = (tmp_path / "held").read_text().split("\n")[:-1]
        assert held == [str(tmp_path / "held")]
    finally:
        os.close(kept)
        os.close(other)


def test_a_helper_whose_work_fails_has_not_succeeded(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "full")

    assert not end(HelperProcess(fail, ()))
    helper = HelperProcess(lambda: os._exit(3), ())
    assert not end(helper)
    helper = HelperProcess(lambda: os.kill(os.getpid(), 9), ())
    assert not end(helper)
    assert "Traceback" not in capfd.readouterr().err


def test_a_helper_that_cannot_be_watched_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    forked = []
    fork = os.fork

    def note() -> int:
        forked.append(fork())
        return forked[-1]

    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "fork", note)
    monkeypatch.setattr(process_calls, "pidfd_open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        HelperProcess(lambda: time.sleep(60), ())
    with pytest.raises(ChildProcessError):
        os.waitpid(forked[0], os.WNOHANG)
