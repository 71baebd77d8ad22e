"""Egress and listen lists of a restored container: enforced, with the addresses of names."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from harness import containers
from harness.containers import running
from harness.engine import PrivateEngine
from jaula.kernel.netlink import Netlink
from jaula.kernel.nfnetlink_conntrack import Flow, delete_tcp
from jaula.kernel.nftables import NETLINK_NETFILTER
from jaula.network.dns import message

pytestmark = pytest.mark.criu

WAIT = ("sh", "-c", "while :; do sleep 1; done")


@contextlib.contextmanager
def name_server(address: str, answers: dict[str, str]) -> Iterator[None]:
    """Serve DNS on the host, at an address of the engine's bridge."""
    ended = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        sock.settimeout(0.2)

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    data, source = sock.recvfrom(4096)
                    query = message.parse(data)
                    sock.sendto(message.answer(query, [answers[query.name]]), source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def connects(engine: PrivateEngine, name: str, target: str) -> bool:
    command = ("wget", "-T", "3", "-q", "-O", "-", f"http://{target}")
    return engine.cli("jaula", "exec", name, *command).returncode == 0


def test_an_egress_list_is_enforced_with_the_addresses_that_names_had(
    engine: PrivateEngine, busybox: str
) -> None:
    serve = ("httpd", "-f", "-p", "80", "-h", "/etc")
    with running(engine, busybox, *serve) as web, running(engine, busybox, *serve) as other:
        gateway = containers.inspect(engine, web)["NetworkSettings"]["Networks"]["bridge"]
        address, elsewhere = (containers.address(engine, each) for each in (web, other))
        lists = ("--egress", "tcp:web.example:80", "--egress", f"tcp:{address}:9")
        flags = ("--dns", gateway["Gateway"], *lists)  # a container's address is internal
        with running(engine, busybox, *WAIT, flags=flags) as name:
            with name_server(gateway["Gateway"], {"web.example": address}):
                assert connects(engine, name, "web.example/passwd")
            jaula(engine, "checkpoint", "create", name, "one")
            jaula(engine, "start", "--checkpoint", "one", name)
            assert connects(engine, name, f"{address}/passwd")
            assert not connects(engine, name, f"{elsewhere}/passwd")
            refused = containers.inspect(engine, name)["EgressRefused"]
            assert [row["Destination"] for row in refused] == [f"tcp:{elsewhere}:80"]
            assert "egress" in jaula(engine, "verify", name)


def test_a_listen_list_is_enforced(engine: PrivateEngine, busybox: str) -> None:
    both = ("sh", "-c", "httpd -p 80 -h /etc; exec httpd -f -p 81 -h /etc")
    with (
        running(engine, busybox, *WAIT) as peer,
        running(engine, busybox, *both, flags=("--listen", "tcp:80")) as name,
    ):
        address = containers.address(engine, name)
        for restored in (False, True):
            if restored:
                jaula(engine, "checkpoint", "create", name, "one")
                jaula(engine, "start", "--checkpoint", "one", name)
            assert connects(engine, peer, f"{address}/passwd")
            assert not connects(engine, peer, f"{address}:81/passwd")
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, 81), timeout=3)


def test_a_restored_container_verifies_as_one_that_was_started(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = ("--sysctl", "net.ipv4.tcp_keepalive_time=600")
    with running(engine, busybox, *WAIT, flags=flags) as name:
        jaula(engine, "checkpoint", "create", name, "one")
        jaula(engine, "start", "--checkpoint", "one", name)
        jaula(engine, "verify", name)
        read = (
            "cat",
            "/proc/sys/net/ipv4/ping_group_range",
            "/proc/sys/net/ipv4/tcp_keepalive_time",
        )
        assert jaula(engine, "exec", name, *read).split() == ["0", "65535", "600"]


def test_a_connection_goes_on_that_the_host_does_not_track(
    engine: PrivateEngine, busybox: str
) -> None:
    """The container sends first, to a client that its egress list does not have."""
    serve = ("nc", "-l", "-p", "80", "-e", "sh", "-c", "while :; do echo tick; sleep 0.2; done")
    flags = ("--egress", "none", "--listen", "tcp:80")
    with running(engine, busybox, *serve, flags=flags) as name:
        address = containers.address(engine, name)
        with connected(address) as client:
            assert client.recv(5) == b"tick\n"
            jaula(engine, "checkpoint", "create", "--tcp-established", name, "one")
            flow = Flow(*client.getsockname(), address, 80)
            with Netlink(protocol=NETLINK_NETFILTER) as table:
                table.send(delete_tcp(flow))
            client.settimeout(10)
            jaula(engine, "start", "--checkpoint", "one", name)
            received = b""
            while len(received) < 100:
                data = client.recv(4096)
                assert data, "the connection was closed"
                received += data
            assert set(received.split()) == {b"tick"}
        assert containers.inspect(engine, name)["EgressRefused"] == []


def connected(address: str) -> socket.socket:
    """Connect once the server listens: it takes one connection."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return socket.create_connection((address, 80), timeout=3)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
