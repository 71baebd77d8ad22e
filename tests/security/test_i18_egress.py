"""I18: an egress list lets no data out: neither by names, nor by neighbour discovery.

The name server is the owner of the names, and hostile: its answers point into internal networks.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import quote

import pytest

from harness import containers
from harness.containers import running, unique
from harness.engine import PrivateEngine
from jaula.kernel.netlink import in_netns
from jaula.network.dns import message

from .test_i18_resolver import Upstream, ask, code, exchange, exchange_tcp

PUBLIC, PUBLIC6 = "198.51.100.7", "2001:db8::7"
CNAME = 5


def record(kind: int, payload: bytes, *, ttl: int = 60, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack(">HHIH", kind, 1, ttl, len(payload)) + payload


def of(*addresses: str, ttl: int = 60) -> list[bytes]:
    rows = [ip_address(address) for address in addresses]
    return [
        record(message.A if row.version == 4 else message.AAAA, row.packed, ttl=ttl) for row in rows
    ]


@dataclass
class Owner(Upstream):
    """Answers each name with the records of ``records``."""

    records: Sequence[bytes] = field(default_factory=list)

    def answer(self, data: bytes, address: str = "") -> bytes:
        query = message.parse(data)
        counts = (1, len(self.records), 0, 0)
        head = struct.pack(">HHHHHH", query.id, 0x8180, *counts)
        return head + query.question + b"".join(self.records)


@dataclass
class Place:
    engine: PrivateEngine
    upstream: Owner
    open: Callable[..., int]  # returns the network namespace of a new container with a list

    def names_asked(self) -> list[str]:
        return [message.parse(data).name for data in self.upstream.asked]


@pytest.fixture
def place(engine: PrivateEngine, busybox: str) -> Iterator[Place]:
    network, own = unique("n"), f"10.198.{engine.index}"
    config = {"Config": [{"Subnet": f"{own}.0/24"}]}
    assert (
        engine.request("POST", "/networks/create", {"Name": network, "IPAM": config}).status == 201
    )
    upstream = Owner(f"{own}.1")
    with ExitStack() as stack:
        stack.callback(engine.request, "DELETE", f"/networks/{network}")
        stack.callback(upstream.close)

        def new(*items: str, network: str = network, flags: tuple[str, ...] = ()) -> int:
            egress = tuple(word for item in items or ("none",) for word in ("--egress", item))
            more = ("--network", network, "--dns", upstream.address, *egress, *flags)
            name = stack.enter_context(running(engine, busybox, flags=more))
            netns = os.open(f"/proc/{containers.pid(engine, name)}/ns/net", os.O_RDONLY)
            stack.callback(os.close, netns)
            return netns

        yield Place(engine, upstream, new)


def connects(netns: int, address: str, port: int) -> bool:
    """Return whether the firewall lets a connection begin: it is not refused at once."""
    with in_netns(netns):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with sock:
        sock.settimeout(1.0)
        try:
            sock.connect((address, port))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


@contextmanager
def listening(address: str, *ports: int) -> Iterator[None]:
    """Serve on an address that the host gets for the time."""
    add = ["ip", "address", "add", f"{address}/32", "dev", "lo"]
    subprocess.run(add, check=True)
    try:
        with ExitStack() as stack:
            for port in ports:
                stack.enter_context(socket.create_server((address, port)))
            yield
    finally:
        subprocess.run([*add[:2], "del", *add[3:]], check=True)


# -- queries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(
    ("items", "asked", "forwarded"),
    [
        ((), "data.evil.example", False),
        ((), "example.org", False),
        (("tcp:example.org:443",), "example.org", True),
        (("tcp:example.org:443",), "EXAMPLE.org", True),
        (("tcp:example.org:443",), "data.example.org", False),
        (("tcp:example.org:443",), "org", False),
        (("tcp:example.org:443",), "example.org.evil.example", False),
        (("tcp:198.51.100.0/24:443",), "example.org", False),
        (("dns:example.org",), "example.org", True),
        (("dns:example.org",), "www.example.org", False),
        (("dns:*",), "data.evil.example", True),
    ],
)
def test_only_names_of_the_list_leave_the_host(
    place: Place, items: tuple[str, ...], asked: str, forwarded: bool, tcp: bool
) -> None:
    netns = place.open(*items)
    place.upstream.records = of(PUBLIC)
    question = ask(asked)
    answer = exchange_tcp(netns, question)[0] if tcp else exchange(netns, question)
    assert place.names_asked() == ([asked.lower()] if forwarded else [])
    assert code(answer) == (message.NOERROR if forwarded else message.REFUSED)
    assert answer[12 : len(question)] == question[12:]


@pytest.mark.parametrize("kind", [message.PTR, 16, 33, 65, message.ANY])
@pytest.mark.parametrize(
    "name", ["7.100.51.198.in-addr.arpa", "1.0.0.127.in-addr.arpa", "x.in-addr.arpa", "a.b"]
)
def test_no_type_of_query_is_a_way_around_the_list(place: Place, name: str, kind: int) -> None:
    netns = place.open("tcp:example.org:443")
    assert code(exchange(netns, ask(name, kind=kind))) == message.REFUSED
    assert place.upstream.asked == []


def test_names_and_addresses_of_containers_are_answered_here(place: Place) -> None:
    netns = place.open(flags=("--network-alias", "own"))
    answer = exchange(netns, ask("own"))
    (address,) = message.parse_addresses(answer)
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert code(exchange(netns, ask(reverse, kind=message.PTR))) == message.NOERROR
    free = ".".join(["222", *reverse.split(".")[1:]])
    assert code(exchange(netns, ask(free, kind=message.PTR))) == message.NXDOMAIN
    assert place.upstream.asked == []


def test_a_query_carries_nothing_but_its_name(place: Place) -> None:
    """Options of EDNS, flags, the case of letters and bytes after the question are the client's."""
    netns = place.open("tcp:example.org:443")
    place.upstream.records = of(PUBLIC)
    secret = b"the data of the container"
    option = struct.pack(">HH", 65001, len(secret)) + secret
    data = bytearray(ask("eXaMpLe.oRg"))
    data[2:4], data[10:12] = b"\x01\x30", b"\0\1"
    data += b"\0" + struct.pack(">HHIH", message.OPT, 1232, 0x8000, len(option)) + option
    answer = exchange(netns, bytes(data))
    assert code(answer) == message.NOERROR
    assert b"\7eXaMpLe\3oRg\0" in answer
    (sent,) = place.upstream.asked
    assert secret not in sent
    assert b"\7example\3org\0" in sent
    assert sent[2:4] == b"\x01\0"


def test_refused_names_are_in_inspect(place: Place) -> None:
    netns = place.open("tcp:example.org:443", flags=("--label", "names=refused"))
    for name in ("data.evil.example", "data.evil.example", "a b.example", "x" * 60, "example.org"):
        exchange(netns, ask(name))
    filters = quote(json.dumps({"label": ["names=refused"]}))
    (row,) = place.engine.request("GET", f"/containers/json?filters={filters}").json()
    document = containers.inspect(place.engine, row["Id"])
    assert document["NamesRefused"] == [
        {"Name": "data.evil.example", "Queries": 2},
        {"Name": "x" * 60, "Queries": 1},
    ]


# -- answers -------------------------------------------------------------------------------------

INTERNAL = [
    *("10.1.2.3", "172.16.0.1", "172.31.255.254", "192.168.7.7", "100.64.0.1", "0.0.0.0"),
    *("169.254.169.254", "127.0.0.1", "127.9.9.9", "224.0.0.251", "255.255.255.255", "240.0.0.1"),
    *("::", "::1", "fe80::1", "fec0::1", "fd00::1", "fc00::1", "ff02::fb", "::ffff:10.1.2.3"),
    *("::10.1.2.3", "64:ff9b::10.1.2.3", "64:ff9b:1::1", "2002:a01:203::1", "::ffff:198.51.100.7"),
    *("2001:0:a01:203::1", "2001:0:c633:6407::f5fe:fdfc", "2001:db8::5efe:10.1.2.3"),
]


@pytest.fixture
def asking(place: Place) -> Callable[[Sequence[bytes]], tuple[int, int]]:
    netns = place.open("tcp:example.org:443")

    def answer(records: Sequence[bytes]) -> tuple[int, int]:
        place.upstream.records = records
        return code(exchange(netns, ask("example.org"))), netns

    return answer


def test_an_answer_that_points_into_internal_networks_is_refused(
    asking: Callable[[Sequence[bytes]], tuple[int, int]], place: Place
) -> None:
    gateway = place.upstream.address  # of the engine's own network
    for address in (*INTERNAL, gateway):
        for records in (
            of(address),
            of(address, ttl=0),
            of(PUBLIC, address),
            of(address, PUBLIC),
            [record(CNAME, b"\4evil\7example\0"), record(1, b"", owner=b"\0"), *of(address)],
            [record(CNAME, b"\4evil\xc0\x14"), *of(PUBLIC, PUBLIC6, address)],
        ):
            result, netns = asking(records)
            assert result == message.REFUSED, (address, records)
    assert asking(of(PUBLIC, PUBLIC6))[0] == message.NOERROR
    assert not connects(netns, gateway, 443)
    text = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True).stdout
    assert "10.1.2.3" not in text
    assert "169.254.169.254" not in text


def test_a_public_address_is_opened_and_an_internal_one_is_not(place: Place) -> None:
    public, private = f"198.51.100.{os.urandom(1)[0]}", f"10.197.{os.urandom(1)[0]}.9"
    netns = place.open("tcp:example.org:4431", "tcp:10.197.0.0/16:4430")
    with listening(public, 4431), listening(private, 4430, 4431):
        place.upstream.records = of(public, ttl=0)
        assert not connects(netns, public, 4431)
        assert code(exchange(netns, ask("example.org"))) == message.NOERROR
        assert connects(netns, public, 4431)
        place.upstream.records = of(private)  # a network of the list contains it
        assert code(exchange(netns, ask("example.org"))) == message.NOERROR
        assert not connects(netns, private, 4431)
        assert connects(netns, private, 4430)


def test_an_internal_address_of_the_list_is_opened_by_its_name(place: Place) -> None:
    private = f"10.197.{os.urandom(1)[0]}.10"
    netns = place.open("tcp:example.org:4431", f"tcp:{private}:4430")
    with listening(private, 4431):
        place.upstream.records = of(private)
        assert not connects(netns, private, 4431)
        assert code(exchange(netns, ask("example.org"))) == message.NOERROR
        assert connects(netns, private, 4431)


def test_a_container_without_a_list_gets_every_answer(
    place: Place, engine: PrivateEngine, busybox: str
) -> None:
    flags = ("--dns", place.upstream.address, "--network", "bridge")
    with running(engine, busybox, flags=flags) as name:
        place.upstream.records = of("10.1.2.3")
        done = engine.cli("jaula", "exec", name, "nslookup", "example.org", place.upstream.address)
        assert "10.1.2.3" in done.stdout
