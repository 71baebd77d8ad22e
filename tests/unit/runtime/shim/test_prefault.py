"""The parts of a start that a spare shim executes: no effect, and a request is not kept waiting."""

from __future__ import annotations

import _socket
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jaula.errors import RuntimeFailure
from jaula.kernel.poll import readable
from jaula.runtime import seqpacket
from jaula.runtime.shim import prefault
from jaula.runtime_interfaces import runtime_interfaces


@pytest.fixture
def pair() -> Iterator[tuple[_socket.socket, _socket.socket]]:
    ours, theirs = seqpacket.pair()
    with closing(ours), closing(theirs):
        yield ours, theirs


def run_in_fork(parts: tuple[prefault.Part, ...], sock: _socket.socket) -> int:
    """Run parts as a spare process does; return its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            prefault.run(parts, sock)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_all_parts_are_executed_while_there_is_no_request(
    pair: tuple[_socket.socket, _socket.socket],
) -> None:
    done: list[int] = []
    prefault.run((lambda: done.append(1), lambda: done.append(2)), pair[1])
    assert done == [1, 2]


def test_a_request_ends_it_and_stays_unread(pair: tuple[_socket.socket, _socket.socket]) -> None:
    done: list[int] = []

    def request_arrives() -> None:
        done.append(1)
        seqpacket.send(pair[0], b"request")

    prefault.run((request_arrives, lambda: done.append(2)), pair[1])
    assert done == [1]
    assert seqpacket.receive(pair[1])[0] == b"request"


def test_the_end_of_the_other_side_ends_it(pair: tuple[_socket.socket, _socket.socket]) -> None:
    pair[0].close()
    prefault.run((lambda: pytest.fail("executed"),), pair[1])


@pytest.mark.parametrize("error", [OSError(1, "refused"), RuntimeFailure("refused")])
def test_a_part_that_fails_ends_the_process(
    pair: tuple[_socket.socket, _socket.socket], error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert run_in_fork((fail,), pair[1]) == 1
    assert "jaula-zygote: prefault" in capfd.readouterr().err


def test_no_descriptor_is_left(pair: tuple[_socket.socket, _socket.socket]) -> None:
    interfaces = runtime_interfaces()
    parts = prefault.of_shim(interfaces)
    prefault.run(parts, pair[1])  # what is opened once and kept, such as the epoll of a module
    before = descriptors()
    prefault.run(parts, pair[1])
    assert descriptors() == before
    assert not readable(0, pair[1].fileno())


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}
