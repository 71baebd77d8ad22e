"""Connections and datagrams that cross from one socket to another."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from jaula.rootless import port_forwarder
from jaula.rootless.namespace_holder import HostSockets, PortForwards
from jaula.rootless.port_protocol import Answer, Bind, Forward, Release, ReleaseOthers
from jaula.runtime.shim.event_loop import EventLoop

TIMEOUT = 20.0


class Running:
    """A relay in a thread of its own."""

    def __init__(self) -> None:
        self.poller = EventLoop()
        self.ports = PortForwards(self.poller, HostSockets())
        self._asked: list[tuple[object, list[Answer]]] = []
        self._wake = os.pipe()
        self._ended = False
        self.poller.watch(self._wake[0], select.EPOLLIN, self._answer)
        self._thread = threading.Thread(target=self._turn, daemon=True)
        self._thread.start()

    def _turn(self) -> None:
        while not self._ended:
            self.poller.turn(0.5)

    def _answer(self, _: int) -> None:
        os.read(self._wake[0], 1)
        request, answers = self._asked.pop(0)
        if request == "expire":
            self.ports.expire()
            answers.append(Answer())
        else:
            answers.append(self.ports.answer(request))  # type: ignore[arg-type]

    def ask(self, request: object) -> Answer:
        answers: list[Answer] = []
        self._asked.append((request, answers))
        os.write(self._wake[1], b"x")
        deadline = time.monotonic() + TIMEOUT
        while not answers:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return answers[0]

    def close(self) -> None:
        self.ask(ReleaseOthers(()))
        self._ended = True
        self.ask("expire")
        self._thread.join(TIMEOUT)


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.close()


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(TIMEOUT)
        yield listening


def tcp(running: Running, server: socket.socket) -> Forward:
    port = free_port(socket.SOCK_STREAM)
    forward = Forward("tcp", "127.0.0.1", port, "127.0.0.1", server.getsockname()[1])
    assert running.ask(Bind(forward)) == Answer(0)
    return forward


def read_all(sock: socket.socket) -> bytes:
    found = b""
    while piece := sock.recv(65536):
        found += piece
    return found


def test_bytes_cross_both_ways_and_an_end_is_passed_on(
    running: Running, server: socket.socket
) -> None:
    forward = tcp(running, server)
    with socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
        inner, _ = server.accept()
        with inner:
            inner.settimeout(TIMEOUT)
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(inner) == b"question"
            inner.sendall(b"answer")
            inner.close()
            assert read_all(client) == b"answer"


def test_what_is_larger_than_any_buffer_arrives_whole(
    running: Running, server: socket.socket
) -> None:
    forward = tcp(running, server)
    data = os.urandom(1 << 20) * 24
    with socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
        inner, _ = server.accept()
        inner.settimeout(TIMEOUT)
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(read_all(inner)))
        client.sendall(data[: 1 << 22])
        reader.start()  # late: the relay had to wait with much of it
        client.sendall(data[1 << 22 :])
        client.close()
        reader.join(TIMEOUT)
        assert received == [data]
        inner.close()


def test_a_port_without_a_server_behind_it_is_closed_at_once(running: Running) -> None:
    port, nobody = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
    running.ask(Bind(Forward("tcp", "127.0.0.1", port, "127.0.0.1", nobody)))
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass  # as good an answer


def test_a_port_that_is_taken_is_refused(running: Running, server: socket.socket) -> None:
    port = server.getsockname()[1]
    answer = running.ask(Bind(Forward("tcp", "127.0.0.1", port, "127.0.0.1", port)))
    assert os.strerror(answer.error) == "Address already in use"


def test_a_port_of_which_nothing_is_known_can_be_dropped(running: Running) -> None:
    assert running.ask(Release(Forward("tcp", "127.0.0.1", 1, "127.0.0.1", 1))) == Answer(0)


def test_asking_for_the_same_again_changes_nothing(running: Running, server: socket.socket) -> None:
    forward = tcp(running, server)
    with socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
        inner, _ = server.accept()
        assert running.ask(Bind(forward)) == Answer(0)
        client.sendall(b"x")
        assert inner.recv(1) == b"x"
        inner.close()


def test_dropping_a_port_cuts_its_connections(running: Running, server: socket.socket) -> None:
    forward = tcp(running, server)
    with socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
        inner, _ = server.accept()
        running.ask(Release(forward))
        assert client.recv(1) == b""
        inner.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", forward.port), TIMEOUT)


def test_only_the_ports_that_are_named_are_kept(running: Running, server: socket.socket) -> None:
    kept, dropped = tcp(running, server), tcp(running, server)
    running.ask(ReleaseOthers((kept,)))
    socket.create_connection(("127.0.0.1", kept.port), TIMEOUT).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", dropped.port), TIMEOUT)


def test_datagrams_are_answered_to_whoever_sent_them(running: Running) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inner:
        inner.bind(("127.0.0.1", 0))
        inner.settimeout(TIMEOUT)
        port = free_port(socket.SOCK_DGRAM)
        running.ask(Bind(Forward("udp", "127.0.0.1", port, *inner.getsockname())))
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
        for number, client in enumerate(clients):
            client.settimeout(TIMEOUT)
            client.sendto(b"%d" % number, ("127.0.0.1", port))
            data, sender = inner.recvfrom(100)
            inner.sendto(data * 2, sender)
        assert [client.recv(100) for client in clients] == [b"00", b"11", b"22"]
        for client in clients:
            client.close()


def test_a_silent_sender_is_forgotten_and_served_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_forwarder, "UDP_IDLE", -1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inner:
        inner.bind(("127.0.0.1", 0))
        inner.settimeout(TIMEOUT)
        port = free_port(socket.SOCK_DGRAM)
        running.ask(Bind(Forward("udp", "127.0.0.1", port, *inner.getsockname())))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"a", ("127.0.0.1", port))
            first = inner.recvfrom(10)[1]
            running.ask("expire")
            client.sendto(b"b", ("127.0.0.1", port))
            data, second = inner.recvfrom(10)
    assert data == b"b"
    assert first != second
