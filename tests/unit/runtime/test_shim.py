"""What the shim reaps, and what it leaves to others."""

from __future__ import annotations

import os
import select

import pytest

from jaula.kernel import process
from jaula.runtime.poller import Poller
from jaula.runtime.shim import Shim

# A shim has one thread; the programs that run tests have more.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.mark.parametrize("reaped", [False, True])
def test_a_stray_is_reaped_once_by_whoever_comes_first(reaped: bool) -> None:
    """Where another runtime made the container, a log's process looks like one it left."""
    shim = object.__new__(Shim)
    shim.poller, shim.strays = Poller(), set()
    pid = os.fork()
    if not pid:
        os._exit(0)
    pidfd = process.pidfd_open(pid)
    shim.strays.add(pid)
    shim.poller.watch(pidfd, select.EPOLLIN, shim._reaper(pid, pidfd))
    if reaped:
        os.waitpid(pid, 0)
    shim.poller.turn(10)
    assert shim.strays == set()
    with pytest.raises(OSError):
        os.fstat(pidfd)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
