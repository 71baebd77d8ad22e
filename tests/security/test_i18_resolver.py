"""I18: the engine's resolver: forwarded queries, accepted answers, and the cost of a flood."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from harness import containers
from harness.containers import running, unique
from harness.engine import PrivateEngine
from jaula.kernel.netlink import in_netns
from jaula.network.dns import message

RESOLVER = ("127.0.0.11", 53)


def ask(name: str, identity: int = 7, kind: int = message.A) -> bytes:
    labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
    head = struct.pack(">HHHHHH", identity, 0x0100, 1, 0, 0, 0)
    return head + labels + b"\0" + struct.pack(">HH", kind, 1)


def code(answer: bytes) -> int:
    return answer[3] & 0xF


def client(netns: int, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    with in_netns(netns):
        made = socket.socket(socket.AF_INET, kind)
    made.settimeout(8)
    made.connect(RESOLVER)
    return made


def exchange(netns: int, data: bytes) -> bytes:
    with client(netns) as near:
        near.send(data)
        return near.recv(65535)


def exchange_tcp(netns: int, *questions: bytes) -> list[bytes]:
    with client(netns, socket.SOCK_STREAM) as near, near.makefile("rwb") as stream:
        for data in questions:
            stream.write(len(data).to_bytes(2, "big") + data)
        stream.flush()
        return [stream.read(int.from_bytes(stream.read(2), "big")) for _ in questions]


@dataclass
class Upstream:
    """A name server on the host, at the network's gateway. ``silent`` ignores queries."""

    address: str
    asked: list[bytes] = field(default_factory=list)
    silent: bool = False
    spoof: bool = False

    def __post_init__(self) -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self.udp, self.tcp):
            sock.bind((self.address, 53))
            sock.settimeout(0.2)
        self.tcp.listen(16)
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=t) for t in (self._datagrams, self._connections)]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()

    def answer(self, data: bytes, address: str = "192.0.2.1") -> bytes:
        return message.answer(message.parse(data), [address])

    def _datagrams(self) -> None:
        while not self.ended.is_set():
            try:
                data, source = self.udp.recvfrom(4096)
            except TimeoutError:
                continue
            self.asked.append(data)
            if self.spoof:
                wrong_id = message.with_id(data, int.from_bytes(data[:2], "big") ^ 1)
                self.udp.sendto(self.answer(wrong_id, "203.0.113.66"), source)
                other = ask("other.example", int.from_bytes(data[:2], "big"))
                self.udp.sendto(self.answer(other, "203.0.113.66"), source)
                self.udp.sendto(b"\0" * 3, source)
            if not self.silent:
                self.udp.sendto(self.answer(data), source)

    def _connections(self) -> None:
        while not self.ended.is_set():
            try:
                near, _ = self.tcp.accept()
            except TimeoutError:
                continue
            with near, near.makefile("rwb") as stream:
                data = stream.read(int.from_bytes(stream.read(2), "big"))
                self.asked.append(data)
                result = self.answer(data, "192.0.2.2")
                stream.write(len(result).to_bytes(2, "big") + result)
                stream.flush()


@dataclass
class Place:
    netns: int
    upstream: Upstream
    name: str


@pytest.fixture(params=[False], ids=["open"])
def place(engine: PrivateEngine, busybox: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    name, own = unique("n"), f"10.198.{engine.index}"
    body = {
        "Name": name,
        "Internal": request.param,
        "IPAM": {"Config": [{"Subnet": f"{own}.0/24"}]},
    }
    assert engine.request("POST", "/networks/create", body).status == 201
    upstream = Upstream(f"{own}.1")
    try:
        with running(
            engine, busybox, flags=("--network", name, "--dns", upstream.address)
        ) as container:
            number = containers.pid(engine, container)
            netns = os.open(f"/proc/{number}/ns/net", os.O_RDONLY)
            try:
                yield Place(netns, upstream, container)
            finally:
                os.close(netns)
    finally:
        upstream.close()
        assert engine.request("DELETE", f"/networks/{name}").status == 204


def test_a_name_without_a_container_is_forwarded_to_the_configured_server(place: Place) -> None:
    answer = exchange(place.netns, ask("example.org", 77))
    assert answer.endswith(b"\xc0\x00\x02\x01")
    assert answer[:2] == b"\0\x4d"
    (seen,) = place.upstream.asked
    assert seen[2:] == ask("example.org")[2:]
    first, second = exchange_tcp(place.netns, ask("example.org", 78), ask(place.name))
    assert first.endswith(b"\xc0\x00\x02\x02")
    assert code(second) == 0
    assert len(place.upstream.asked) == 2  # the container's own name did not leave


def test_answers_to_another_query_are_refused(place: Place) -> None:
    place.upstream.spoof = True
    for identity in range(5):
        answer = exchange(place.netns, ask("example.org", identity))
        assert answer.endswith(b"\xc0\x00\x02\x01")
    asked = {data[:2] for data in place.upstream.asked}
    assert len(asked) > 1  # ids are not the container's


@pytest.mark.parametrize("place", [True], indirect=True, ids=["internal"])
def test_no_query_leaves_an_internal_network(place: Place) -> None:
    answer = exchange(place.netns, ask("secret.example.org"))
    assert code(answer) == message.SERVFAIL
    assert code(exchange_tcp(place.netns, ask("secret.example.org"))[0]) == message.SERVFAIL
    assert code(exchange(place.netns, ask(place.name))) == message.NOERROR
    assert place.upstream.asked == []


def test_a_silent_server_is_an_error_in_bounded_time(place: Place) -> None:
    place.upstream.silent = True
    began = time.monotonic()
    assert code(exchange(place.netns, ask("example.org"))) == message.SERVFAIL
    assert time.monotonic() - began < 7


def test_a_query_flood_is_throttled_and_the_engine_responds(
    engine: PrivateEngine, place: Place
) -> None:
    place.upstream.silent = True
    ended = threading.Event()

    def flood() -> None:
        with client(place.netns) as near:
            near.setblocking(False)
            while not ended.is_set():
                try:
                    near.send(ask("example.org"))
                    near.send(ask(place.name))
                    near.send(os.urandom(40))
                except OSError:
                    time.sleep(0.001)

    def flood_tcp() -> None:
        with client(place.netns, socket.SOCK_STREAM) as near:
            data = ask(place.name)
            try:
                while not ended.is_set():
                    near.sendall((len(data).to_bytes(2, "big") + data) * 100)
            except OSError:
                return

    threads = [threading.Thread(target=work) for work in (flood, flood, flood_tcp)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert engine.request("GET", "/_ping", timeout=10).status == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.05)
        assert slowest < 2.0
        assert len(place.upstream.asked) < 1000  # 64 at a time, for 2 seconds each
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    deadline = time.monotonic() + 15
    while code(exchange(place.netns, ask(place.name))) != message.NOERROR:
        assert time.monotonic() < deadline


@pytest.mark.slow
def test_tcp_connections_are_limited_and_idle_ones_closed(place: Place) -> None:
    opened = [client(place.netns, socket.SOCK_STREAM) for _ in range(16)]
    try:
        time.sleep(0.3)
        with client(place.netns, socket.SOCK_STREAM) as one_more:
            assert one_more.recv(1) == b""
        opened[0].settimeout(15)
        assert opened[0].recv(1) == b""
        assert code(exchange_tcp(place.netns, ask(place.name))[0]) == message.NOERROR
    finally:
        for sock in opened:
            sock.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"a" * 11, bytes(range(256)) * 2, ask("web")[:-1], b"\xff" * 4000, bytes(12)],
    ids=["none", "one", "eleven", "all", "cut", "ones", "zeroes"],
)
def test_malformed_queries_do_no_harm(place: Place, data: bytes) -> None:
    with client(place.netns) as near:
        near.send(data)
    with client(place.netns, socket.SOCK_STREAM) as near:
        near.sendall(len(data).to_bytes(2, "big") + data)
    with client(place.netns, socket.SOCK_STREAM) as near:
        near.sendall(b"\xff\xff" + data)
    assert code(exchange(place.netns, ask(place.name))) == message.NOERROR


def test_no_other_namespace_reaches_the_resolver_of_a_container(
    engine: PrivateEngine, busybox: str, place: Place
) -> None:
    with running(engine, busybox) as other:
        netns = os.open(f"/proc/{containers.pid(engine, other)}/ns/net", os.O_RDONLY)
        try:
            with client(netns) as near:
                near.settimeout(1)
                near.send(ask(place.name))
                with pytest.raises(OSError, match=r"refused|timed out"):
                    near.recv(512)
        finally:
            os.close(netns)
