"""I18: reachability on the default network is a tested matrix that survives a reload.

An engine, its containers and a machine outside are in network namespaces of the test, so a rule can
be removed without changing the host. Each row that must fail succeeds without its rule.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from integration.network.conftest import (
    HOST_OUTER,
    OUTSIDE,
    Box,
    Topology,
    arp_frame,
    connected,
    listen,
    raw,
    received,
    run_nft,
    talks,
    topology,
    udp_frame,
)
from jaula.kernel.netlink import in_netns
from jaula.kernel.poll import readable
from jaula.kernel.rtnetlink import Rtnetlink, add_address, mac_bytes
from jaula.network import PortRequest
from jaula.network.firewall import bridge_rules

METADATA = "169.254.169.254"
"""Where clouds answer with credentials of the machine; here the machine outside answers."""

PUBLISHED = 8080

Row = tuple[str, str, int, str, bool]
"""Who, to whose address, port, whose server, and whether it is to be reached."""

MATRIX: tuple[Row, ...] = (
    ("first", "second", 80, "second", True),
    ("second", "first", 80, "first", True),
    ("first", "outside", 80, "outside", True),
    ("first", "host", 80, "host", True),
    ("first", "gateway", 80, "host", True),
    ("first", "loopback", 80, "first", True),
    ("first", "loopback", 81, "host", False),
    ("first", "metadata", 80, "outside", True),
    ("second", "host", PUBLISHED, "first", True),
    ("host", "first", 80, "first", True),
    ("host", "loopback", PUBLISHED, "first", True),
    ("host", "second", 80, "second", True),
    ("outside", "host", PUBLISHED, "first", True),
    ("outside", "first", 80, "first", False),
    ("outside", "first", 81, "first", False),
    ("outside", "second", 80, "second", False),
    ("outside", "gateway", 80, "host", True),
)


def listening(port: int) -> int:
    """Return the port of the server that is reached at ``port``."""
    return 80 if port == PUBLISHED else port


class Neighbours:
    """Two containers, the first with a published port, the host and the machine outside."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.first, self.second = topology.box(), topology.box()
        with in_netns(topology.host):
            self.watch = topology.manager.watch()
            topology.manager.publish(self.first.endpoint, [PortRequest(80, host_port=PUBLISHED)])
        with Rtnetlink(topology.outside) as far:
            link = far.link("eth0")
            assert link is not None
            far.send(add_address(link.index, METADATA, 32))
        run_ip(topology.outside, "route", "add", str(self.first.address), "via", HOST_OUTER)
        run_ip(topology.host, "route", "add", f"{METADATA}/32", "via", OUTSIDE)

    @property
    def table(self) -> str:
        return bridge_rules.table_name("jltbr0")

    def place(self, name: str) -> int:
        places = {"first": self.first.net, "second": self.second.net, "host": self.topology.host,
                  "outside": self.topology.outside}  # fmt: skip
        return places[name]

    def address(self, name: str) -> str:
        return {
            "first": self.first.address,
            "second": self.second.address,
            "host": HOST_OUTER,
            "gateway": self.first.endpoint.gateway,
            "loopback": "127.0.0.1",
            "outside": OUTSIDE,
            "metadata": METADATA,
        }[name]

    def reaches(
        self, sender: str, target: str, port: int, server: str, *, expected: bool = True
    ) -> bool:
        """Return whether ``sender`` reaches a server of ``server`` at the target's address."""
        with listen(self.place(server), "0.0.0.0", listening(port)) as service:
            # the first packets of a busy machine may wait for an answer to ARP
            tries = range(3 if expected else 1)
            to = (self.address(target), port)
            return any(talks(self.place(sender), to, service) is not None for _ in tries)

    def wrong(self) -> list[Row]:
        """Return the rows of the matrix that do not hold.

        The attempts that must fail are made at once, since each lasts until its time-out.
        """
        refused = [row for row in MATRIX if not row[4]]
        with ExitStack() as stack:
            for server, port in {(server, listening(port)) for _, _, port, server, _ in refused}:
                address = self.address(server) if server in ("first", "second") else "0.0.0.0"
                stack.enter_context(listen(self.place(server), address, port))
            wrong = connected(
                {row: (self.place(row[0]), (self.address(row[1]), row[2])) for row in refused}
            )
        reached = (row for row in MATRIX if row[4])
        return [*wrong, *(row for row in reached if not self.reaches(*row[:4]))]

    def strike(self, *commands: str) -> None:
        """Change rules outside the engine."""
        for command in commands:
            run_nft(self.topology.host, *command.format(t=self.table).split())

    def reload(self) -> None:
        """Reload the firewall as an administrator does, then let the engine repair its rules."""
        run_nft(self.topology.host, "flush", "ruleset")
        assert readable(5, self.watch), "the engine is told"
        with in_netns(self.topology.host):
            assert self.topology.manager.repair()


def run_ip(netns: int, *words: str) -> None:
    with in_netns(netns):
        subprocess.run(["ip", *words], check=True, timeout=10)


@pytest.fixture
def neighbours(topology: Topology) -> Neighbours:
    return Neighbours(topology)


@pytest.fixture
def routed(neighbours: Neighbours) -> Neighbours:
    """Give the machine outside a route to each address of the default network."""
    for address in (neighbours.second.address, neighbours.address("gateway")):
        run_ip(neighbours.topology.outside, "route", "replace", address, "via", HOST_OUTER)
    return neighbours


def test_every_row_of_the_matrix_holds(routed: Neighbours) -> None:
    assert routed.wrong() == []


def test_the_matrix_holds_after_a_firewall_reload(routed: Neighbours) -> None:
    routed.reload()
    assert routed.wrong() == []


def test_without_rules_the_refused_rows_are_reached(routed: Neighbours) -> None:
    """The refusals of the rows above are caused by the rules."""
    run_nft(routed.topology.host, "flush", "ruleset")
    refused = {row for row in MATRIX if not row[4] and row[1] != "loopback"}
    assert refused == {row for row in routed.wrong() if not row[4]}


# -- each refusal is seen to be one ----------------------------------------------------------


def test_without_its_rule_an_unpublished_port_is_reachable_from_outside(
    neighbours: Neighbours,
) -> None:
    assert not neighbours.reaches("outside", "first", 81, "first", expected=False)
    neighbours.strike("flush chain ip {t} forward")
    assert neighbours.reaches("outside", "first", 81, "first")


@pytest.mark.parametrize("cve", ["CVE-2020-8558"])
def test_a_container_cannot_reach_the_loopback_of_the_host(
    neighbours: Neighbours, cve: str
) -> None:
    assert not reaches_loopback(neighbours)
    neighbours.strike("flush chain ip {t} guard")
    assert reaches_loopback(neighbours), "the row above could not have failed"


def reaches_loopback(neighbours: Neighbours) -> bool:
    """Send a handmade datagram to 127.0.0.1: the container's kernel would not send it."""
    box = neighbours.first
    with listen(neighbours.topology.host, "127.0.0.1", 9999, socket.SOCK_DGRAM) as service:
        service.settimeout(0.4)
        with raw(box.net, "eth0") as sending:
            gateway_mac = mac_of_bridge(neighbours)
            frame = udp_frame(gateway_mac, box.endpoint.mac, box.address, "127.0.0.1", 9999, b"hi")
            sending.send(frame)
        try:
            return service.recv(16) == b"hi"
        except TimeoutError:
            return False


def mac_of_bridge(neighbours: Neighbours) -> str:
    with in_netns(neighbours.topology.host), open("/proc/net/dev") as _:
        done = subprocess.run(
            ["ip", "-br", "link", "show", "jltbr0"], capture_output=True, text=True, check=True
        )
    return done.stdout.split()[2]


def unused(neighbours: Neighbours) -> str:
    """Return an unused address of the subnet."""
    return neighbours.first.address.rpartition(".")[0] + ".201"


FORGERIES: dict[str, Callable[[Neighbours], bytes]] = {
    "another's address": lambda n: udp_frame(
        n.second.endpoint.mac, n.first.endpoint.mac, unused(n), n.second.address,
        9999, b"forged",
    ),
    "another's MAC": lambda n: udp_frame(
        n.second.endpoint.mac, "02:11:22:33:44:55", n.first.address, n.second.address,
        9999, b"forged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_container_cannot_send_from_the_address_of_another(
    neighbours: Neighbours, forgery: str
) -> None:
    def arrives() -> bool:
        frame = FORGERIES[forgery](neighbours)
        with raw(neighbours.second.net, "eth0") as ear, raw(neighbours.first.net, "eth0") as mouth:
            mouth.send(frame)
            return received(ear, b"forged")

    assert not arrives()
    neighbours.strike("flush chain bridge {t} prerouting")
    assert arrives(), "the row above could not have failed"


@pytest.mark.parametrize("cve", ["CVE-2020-10749"])
def test_a_container_cannot_answer_arp_for_the_gateway(neighbours: Neighbours, cve: str) -> None:
    def arrives() -> bool:
        frame = arp_frame(
            neighbours.first.endpoint.mac,
            neighbours.first.endpoint.gateway,
            neighbours.second.address,
        )
        with raw(neighbours.second.net, "eth0") as ear, raw(neighbours.first.net, "eth0") as mouth:
            mouth.send(frame)
            claim = mac_bytes(neighbours.first.endpoint.mac) + socket.inet_aton(
                neighbours.first.endpoint.gateway
            )
            return received(ear, claim)

    assert not arrives()
    neighbours.strike("flush chain bridge {t} prerouting")
    assert arrives(), "the row above could not have failed"


def advertisement(source_mac: bytes) -> bytes:
    """Return a router advertisement to all nodes (RFC 4861, 4.2); its prefix names the sender."""
    body = struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    body += struct.pack(">BBBBIII16s", 3, 4, 64, 0xC0, 600, 600, 0, b"router says hello")
    source, everyone = b"\xfe\x80" + bytes(13) + b"\1", b"\xff\2" + bytes(13) + b"\1"
    pseudo = source + everyone + struct.pack(">II", len(body), 58)
    total = sum(struct.unpack(f">{(len(pseudo) + len(body)) // 2}H", pseudo + body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    head = struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + source + everyone
    return b"\x33\x33\0\0\0\1" + source_mac + b"\x86\xdd" + head + body


@pytest.mark.parametrize("cve", ["CVE-2020-13401", "CVE-2020-10749"])
def test_router_advertisements_between_containers_are_dropped(
    neighbours: Neighbours, cve: str
) -> None:
    def arrives() -> bool:
        source = bytes.fromhex(neighbours.first.endpoint.mac.replace(":", ""))
        with raw(neighbours.second.net, "eth0") as ear, raw(neighbours.first.net, "eth0") as mouth:
            mouth.send(advertisement(source))
            return received(ear, b"router says hell")

    assert not arrives()
    neighbours.strike("flush chain bridge {t} prerouting")
    assert arrives(), "the row above could not have failed"


@pytest.mark.skipif(not os.path.isdir("/proc/sys/net/ipv6"), reason="a kernel without IPv6")
def test_no_interface_has_an_ipv6_address(neighbours: Neighbours) -> None:
    def addresses(netns: int) -> list[str]:
        with in_netns(netns), open("/proc/thread-self/net/if_inet6") as file:
            result = [line.split() for line in file]
        return [f"{word[5]} {word[0]}" for word in result if word[5] in ("eth0", "jltbr0")]

    for box in (neighbours.first, neighbours.second):
        assert addresses(box.net) == []
        with socket_in(box.net) as client, pytest.raises(OSError, match=r"unreachable|assign"):
            client.connect(("2001:db8::1", 80))
    assert addresses(neighbours.topology.host) == []
    with (
        in_netns(neighbours.first.net),
        open("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "w") as file,
    ):
        file.write("0")
    import time

    deadline = time.monotonic() + 5
    while not addresses(neighbours.first.net) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert addresses(neighbours.first.net), "the row above could not have failed"


def socket_in(netns: int) -> socket.socket:
    with in_netns(netns):
        return socket.socket(socket.AF_INET6)


def test_a_blocked_metadata_address_is_unreachable(neighbours: Neighbours) -> None:
    """The default network reaches that address; ``--network none`` does not.

    The default network leads outside, so to that address too.
    """
    assert neighbours.reaches("first", "metadata", 80, "outside")
    neighbours.strike("insert rule ip {t} guard ip daddr 169.254.0.0/16 drop")
    assert not neighbours.reaches("first", "metadata", 80, "outside", expected=False)


def test_a_container_without_a_network_reaches_no_address(neighbours: Neighbours) -> None:
    from integration.network.conftest import new_namespace

    alone = new_namespace()
    try:
        for target in ("first", "second", "host", "gateway", "outside", "metadata"):
            with in_netns(alone):
                client = socket.socket()
            with client, pytest.raises(OSError, match="unreachable"):
                client.connect((neighbours.address(target), 80))
    finally:
        os.close(alone)


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Assert that the firewall and interfaces of the machine are unchanged."""

    def state() -> str:
        return subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=True
        ).stdout

    before = state()
    yield
    assert [line for line in state().splitlines() if "jltbr0" in line] == []
    assert "jltbr0" not in before


__all__ = ["Box", "topology"]
