"""The children that a shim reaps."""

from __future__ import annotations

import os

import pytest

from jaula.runtime.shim.event_loop import EventLoop
from jaula.runtime.shim.shim import Reaper

# A shim has one thread; the programs that run tests have more.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.mark.parametrize("reaped", [False, True])
def test_a_reparented_child_is_reaped_once(reaped: bool) -> None:
    """With an external runtime a log's helper looks like an orphan of the runtime."""
    poller = EventLoop()
    strays = Reaper(poller)
    before = len(os.listdir("/proc/self/fd"))
    pid = os.fork()
    if not pid:
        os._exit(0)
    strays.watch(pid)
    assert pid in strays
    if reaped:
        os.waitpid(pid, 0)
    poller.run_once(10)
    assert pid not in strays
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_other_children_are_not_reaped() -> None:
    strays = Reaper(EventLoop())
    pid = os.fork()
    if not pid:
        os._exit(0)
    others = {int(word) for word in _children() if int(word) != pid}
    strays.scan({pid, *others})
    assert pid not in strays
    assert os.waitpid(pid, 0)[0] == pid


def _children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()
