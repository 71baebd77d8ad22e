"""Forwarded connections and datagrams."""

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
    """A forwarder in its own thread."""

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
            self.poller.run_once(0.5)

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
    result = b""
    while piece := sock.recv(65536):
        result += piece
    return result


def test_data_is_forwarded_in_both_directions_with_the_end_of_file(
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


def test_data_larger_than_all_buffers_arrives_complete(
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
        reader.start()  # late: the forwarder had to wait with much of it
        client.sendall(data[1 << 22 :])
        client.close()
        reader.join(TIMEOUT)
        assert received == [data]
        inner.close()


def test_a_connection_without_a_server_is_closed_at_once(running: Running) -> None:
    port, closed = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
    running.ask(Bind(Forward("tcp", "127.0.0.1", port, "127.0.0.1", closed)))
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass  # also a valid answer


def test_a_port_in_use_is_refused(running: Running, server: socket.socket) -> None:
    port = server.getsockname()[1]
    answer = running.ask(Bind(Forward("tcp", "127.0.0.1", port, "127.0.0.1", port)))
    assert os.strerror(answer.error) == "Address already in use"


def test_an_unknown_port_can_be_released(running: Running) -> None:
    assert running.ask(Release(Forward("tcp", "127.0.0.1", 1, "127.0.0.1", 1))) == Answer(0)


def test_a_repeated_bind_changes_nothing(running: Running, server: socket.socket) -> None:
    forward = tcp(running, server)
    with socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
        inner, _ = server.accept()
        assert running.ask(Bind(forward)) == Answer(0)
        client.sendall(b"x")
        assert inner.recv(1) == b"x"
        inner.close()


def test_releasing_a_port_closes_its_connections(running: Running, server: socket.socket) -> None:
    forward = tcp(running, server)
    with socket.create_connection(("127.0.0.1", forward.port), TIMEOUT) as client:
        inner, _ = server.accept()
        running.ask(Release(forward))
        assert client.recv(1) == b""
        inner.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", forward.port), TIMEOUT)


def test_release_others_keeps_the_listed_ports(running: Running, server: socket.socket) -> None:
    kept, dropped = tcp(running, server), tcp(running, server)
    running.ask(ReleaseOthers((kept,)))
    socket.create_connection(("127.0.0.1", kept.port), TIMEOUT).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", dropped.port), TIMEOUT)


def test_replies_to_datagrams_reach_their_senders(running: Running) -> None:
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


def test_an_idle_sender_expires_and_is_served_again(
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
