"""The children that a shim reaps, and the descriptors that it holds for engines."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from jaula.runtime import seqpacket, shim_protocol
from jaula.runtime.shim.engine_connections import ControlSockets
from jaula.runtime.shim.event_loop import EventLoop
from jaula.runtime.shim.shim import Reaper
from jaula.runtime.shim_protocol import Answer, HelloRequest, SignalRequest

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


def test_an_engine_gets_the_held_descriptors_with_the_answer_to_hello(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    poller = EventLoop()

    def handle(request: shim_protocol.ShimRequest, fds: list[int]) -> Answer:
        return Answer(request.number)

    sockets = ControlSockets(poller, str(tmp_path), handle, lambda: None, (read_end,))
    engine, shim_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sockets.serve(shim_end)
    received = []
    for request in (SignalRequest(1, "", 0), HelloRequest(2)):
        seqpacket.send(engine, shim_protocol.encode(request))
        poller.run_once(10)
        data, fds = seqpacket.receive(engine)
        assert shim_protocol.decode_from_shim(data) == Answer(request.number)
        received.append(fds)
    assert [len(fds) for fds in received] == [0, 1]
    os.write(write_end, b"x")
    assert os.read(received[1][0], 8) == b"x"
    for fd in (read_end, write_end, received[1][0]):
        os.close(fd)
    for sock in (engine, shim_end):
        sock.close()
