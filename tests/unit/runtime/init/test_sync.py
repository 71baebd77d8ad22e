"""The synchronisation of the parent with a new process and the stage that cloned it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable

import pytest

from jaula.kernel.namespaces import SharedPid
from jaula.kernel.poll import readable
from jaula.runtime import seqpacket
from jaula.runtime.init import init_sync
from jaula.spec.runtime_spec import Process


def forked(run: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            run()
        finally:
            os._exit(70)
    return pid


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGSTOP], ids=["sleeps", "is-stopped"])
def test_the_stage_is_reaped_before_the_program_executes(number: signal.Signals) -> None:
    """The stage counts in the container's limit of processes until it is reaped."""
    stage_pid = forked(lambda: (os.kill(os.getpid(), number), signal.pause()))
    stage = (stage_pid, os.pidfd_open(stage_pid))
    parent, child = seqpacket.pair()

    def process() -> None:
        parent.close()
        seqpacket.send(child, b"P%d" % os.getpid())
        init_sync.wait_to_proceed(child)
        gone = not os.path.exists(f"/proc/{stage_pid}")
        os.execv("/bin/sh", ["sh", "-c", f"exit {0 if gone else 1}"])

    pid = forked(process)
    child.close()
    followed = init_sync.follow(
        parent, stage, SharedPid(), Process("/"), (0, 0), died_message="the process died"
    )
    assert followed == (pid, -1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("reports", [True, False], ids=["late", "killed"])
def test_a_process_that_waits_before_the_stage_reports_has_its_pid(reports: bool) -> None:
    """The process may send its message first. A pid of 0 would be every process of the group."""
    parent, child = seqpacket.pair()
    shared_pid = SharedPid()

    def process() -> None:
        parent.close()
        seqpacket.send(child, b"W")
        signal.pause()

    def stage() -> None:
        parent.close()
        os.read(go, 1)  # until the message of the process is in the socket
        if reports:
            seqpacket.send(child, b"P%d" % pid)

    go, went = os.pipe()
    pid = forked(process)
    ctypes.c_int.from_address(shared_pid.address).value = pid
    stage_pid = forked(stage)
    stage_fds = (stage_pid, os.pidfd_open(stage_pid))
    assert readable(30, parent.fileno())
    os.write(went, b"x")
    os.close(go)
    os.close(went)
    child.close()
    try:
        followed = init_sync.follow(
            parent,
            stage_fds,
            shared_pid,
            Process("/"),
            (0, 0),
            died_message="the process died",
            waits_for_start=True,
        )
        assert followed == (pid, -1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_disk_and_a_used_up_quota_have_a_remedy(number: int) -> None:
    parent, child = seqpacket.pair()
    error = OSError(number, os.strerror(number), "/proc/sys/x")
    pid = forked(lambda: init_sync.report(child, error, "a step"))
    data = parent.recv(4096)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125
    failure = init_sync.decode_failure(data[1:])
    text = f"a step: {os.strerror(number)} (/proc/sys/x)"
    full = number in (errno.ENOSPC, errno.EDQUOT)
    assert failure.message == (f"{text} (free some space and try again)" if full else text)
    assert failure.errno == (number if full else 0)
