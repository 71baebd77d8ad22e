"""Questions and answers as bytes, hostile ones too."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.network.dns import message
from jaula.network.dns import names as dns_names
from jaula.spec.endpoint import Endpoint


def labels(name: str) -> bytes:
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"


def ask(name: str, kind: int = message.A, *, flags: int = 0x0100, klass: int = 1) -> bytes:
    return (
        struct.pack(">HHHHHH", 7, flags, 1, 0, 0, 0)
        + labels(name)
        + struct.pack(">HH", kind, klass)
    )


def extended(name: str, size: int) -> bytes:
    data = bytearray(ask(name))
    data[10:12] = b"\0\1"
    return bytes(data) + b"\0" + struct.pack(">HHIH", message.OPT, size, 0, 0)


def head(data: bytes) -> tuple[int, int, int, int]:
    """(rcode, answers, whether it was cut, id)."""
    identity, flags, _, answers, _, _ = struct.unpack_from(">HHHHHH", data)
    assert flags & 0x8000
    return flags & 0xF, answers, flags >> 9 & 1, identity


def test_a_question_is_read_in_lower_case() -> None:
    query = message.parse(ask("WeB.Shop", message.AAAA))
    assert (query.name, query.type, query.error, query.size) == ("web.shop", message.AAAA, 0, 512)
    assert message.parse(extended("web", 4096)).size == 4096
    assert message.parse(extended("web", 10)).size == 512


def test_an_answer_holds_the_addresses_of_the_asked_kind() -> None:
    both = ["10.0.0.2", "fd00::2"]
    four = message.answer(message.parse(ask("web")), both)
    assert head(four) == (0, 1, 0, 7)
    assert four.endswith(b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x0a\0\0\2")
    six = message.answer(message.parse(ask("web", message.AAAA)), both)
    assert six.endswith(b"\0\x10\xfd" + bytes(14) + b"\2")
    assert head(message.answer(message.parse(ask("web", message.ANY)), both))[1] == 2


def test_a_known_name_without_such_an_address_is_an_empty_answer() -> None:
    for kind in (message.AAAA, 15, 33, 65):
        assert head(message.answer(message.parse(ask("web", kind)), ["10.0.0.2"])) == (0, 0, 0, 7)


def test_what_does_not_fit_in_a_datagram_is_cut_and_says_so() -> None:
    many = [f"10.0.0.{n}" for n in range(1, 101)]
    query = message.parse(ask("web"))
    cut = message.answer(query, many, limit=query.size)
    code, count, truncated, _ = head(cut)
    assert (code, truncated) == (0, 1)
    assert 0 < count < 100
    assert len(cut) <= 512
    assert head(message.answer(query, many))[1:3] == (100, 0)
    wide = message.parse(extended("web", 4096))
    answer = message.answer(wide, many, limit=wide.size)
    assert head(answer)[1:3] == (100, 0)
    assert answer[-11:-8] == b"\0\0\x29"


def test_a_pointer_is_the_name_and_the_network() -> None:
    query = message.parse(ask("2.0.0.10.in-addr.arpa", message.PTR))
    assert message.pointer(query, "web.shop").endswith(b"\3web\4shop\0")
    assert head(message.pointer(query, "x" * 64 + ".shop"))[0] == message.NXDOMAIN


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.0.10.in-addr.arpa", "10.0.0.2"),
        ("2." + "0." * 29 + "d.f.ip6.arpa", "fd00::2"),
        ("2.0.0.in-addr.arpa", None),
        ("x.0.0.10.in-addr.arpa", None),
        ("2.d.f.ip6.arpa", None),
        ("g" + ".0" * 31 + ".ip6.arpa", None),
        ("in-addr.arpa", None),
        ("web", None),
    ],
)
def test_names_of_addresses(name: str, address: str | None) -> None:
    assert message.parse_reverse_name(name) == address


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (ask("web", flags=0x1000), message.NOTIMP),  # a status request
        (ask("web")[:-1], message.FORMERR),
        (ask("web")[:14], message.FORMERR),
        (ask("web")[:12] + b"\xc0\x0c\0\1\0\1", message.FORMERR),  # a pointer at itself
        (ask("web")[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1", message.FORMERR),
        (ask("web")[:12] + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1", message.FORMERR),
        (struct.pack(">HHHHHH", 7, 0, 0, 0, 0, 0), message.FORMERR),
        (struct.pack(">HHHHHH", 7, 0, 2, 0, 0, 0) + ask("web")[12:], message.FORMERR),
        (extended("web", 512)[:-6], message.FORMERR),
    ],
)
def test_what_cannot_be_answered_is_told(data: bytes, error: int) -> None:
    query = message.parse(data)
    assert query.error == error
    found = dns_names.answer(query, [], lambda network: (), limit=512)
    assert found is not None
    assert head(found)[0] == error


@pytest.mark.parametrize("data", [b"", b"x" * 11, ask("web", flags=0x8000)])
def test_what_is_no_question_gets_no_answer(data: bytes) -> None:
    with pytest.raises(message.MalformedMessage):
        message.parse(data)


def test_a_dot_or_odd_bytes_inside_a_label_are_no_name_of_a_container() -> None:
    data = ask("web")[:12] + b"\7web.net\0\0\1\0\1"
    assert message.parse(data).name == ""
    assert message.parse(ask("web")[:12] + b"\1\xff\0\0\1\0\1").name == ""
    assert message.parse(ask("web", klass=3)).name == ""


@given(st.binary(max_size=600))
def test_any_bytes_are_a_query_or_malformed(data: bytes) -> None:
    try:
        query = message.parse(data)
    except message.MalformedMessage:
        return
    for found in (
        message.failure(query, message.SERVFAIL),
        message.answer(query, ["10.0.0.1"], limit=512),
    ):
        assert found[:2] == data[:2]
        assert len(found) <= len(data) + 40


@given(st.binary(max_size=100), st.integers(0, 65535))
def test_only_the_answer_to_what_was_asked_is_taken(data: bytes, identity: int) -> None:
    query = message.parse(ask("example.org"))
    right = message.with_id(message.answer(query, ["10.0.0.1"]), identity)
    assert message.is_answer_to(right, identity, query)
    assert not message.is_answer_to(right, identity ^ 1, query)
    assert not message.is_answer_to(message.with_id(ask("example.org"), identity), identity, query)
    other = message.answer(message.parse(ask("example.net")), ["10.0.0.1"])
    assert not message.is_answer_to(message.with_id(other, identity), identity, query)
    message.is_answer_to(data, identity, query)


# -- who is called what ------------------------------------------------------------------------


def endpoint(network: str, address: str, *names: str, internal: bool = False) -> Endpoint:
    return Endpoint(
        *(network, "e" * 64, names[0] * 12, names[0], address, 24, "10.0.0.1", "02:42:0a:00:00:02"),
        "jl0000000000",
        names=names,
        internal=internal,
        ipv6="fd00::" + address.rpartition(".")[2],
    )


NETWORKS = {
    "front": [
        endpoint("front", "10.0.0.2", "web", "www"),
        endpoint("front", "10.0.0.3", "worker", "pool"),
        endpoint("front", "10.0.0.4", "worker2", "pool"),
    ],
    "back": [
        endpoint("back", "10.1.0.2", "web", internal=True),
        endpoint("back", "10.1.0.3", "db", "SQL", internal=True),
    ],
    "other": [endpoint("other", "10.2.0.2", "secret")],
}
OWN = [NETWORKS["front"][0], NETWORKS["back"][0]]


def called(name: str) -> list[str]:
    return [e.ipv4 for e in dns_names.find_endpoints(name, OWN, lambda n: NETWORKS[n])]


def test_names_are_those_of_the_askers_networks_and_no_others() -> None:
    assert called("web") == ["10.0.0.2"]
    assert called("www") == ["10.0.0.2"]
    assert called("web.back") == ["10.1.0.2"]
    assert called("db") == called("sql") == called("db.back") == ["10.1.0.3"]
    assert called("pool") == ["10.0.0.3", "10.0.0.4"]
    for unknown in ("secret", "secret.other", "db.front", "nobody", "", "front", ".front"):
        assert called(unknown) == []


def test_a_link_is_a_name_that_its_container_alone_has() -> None:
    own = [msgspec.structs.replace(OWN[0], links={"store": "web", "db": "www"}), *OWN[1:]]

    def found(name: str, asker: list[Endpoint]) -> list[str]:
        return [e.ipv4 for e in dns_names.find_endpoints(name, asker, lambda n: NETWORKS[n])]

    assert found("store", own) == found("store.front", own) == ["10.0.0.2"]
    assert found("db", own) == ["10.0.0.2"], "it comes before what another is called"
    assert found("store", OWN) == []


def answered(name: str, kind: int = message.A) -> bytes | None:
    return dns_names.answer(message.parse(ask(name, kind)), OWN, lambda n: NETWORKS[n], limit=512)


def test_what_no_container_is_called_is_left_to_others() -> None:
    assert answered("example.org") is None
    assert answered("1.0.0.10.in-addr.arpa", message.PTR) is None
    assert answered("db", message.AAAA) is not None


def test_reverse_names() -> None:
    found = answered("3.0.1.10.in-addr.arpa", message.PTR)
    assert found is not None
    assert found.endswith(b"\2db\4back\0")
    assert answered("2.0.2.10.in-addr.arpa", message.PTR) is None


def test_askers_in_turn_begin_with_another_address() -> None:
    firsts = set()
    for identity in range(4):
        query = message.parse(message.with_id(ask("pool"), identity))
        found = dns_names.answer(query, OWN, lambda n: NETWORKS[n], limit=512)
        assert found is not None
        firsts.add(found[-4:])
    assert len(firsts) == 2


def test_questions_leave_only_if_some_network_leads_outside() -> None:
    assert dns_names.may_forward(OWN)
    assert not dns_names.may_forward(NETWORKS["back"][:1])
    assert not dns_names.may_forward([])


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        ("192.0.2.53", True),
        ("2001:db8::53", True),
        ("::ffff:192.0.2.53", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:0.0.0.0", False),
        ("224.0.0.251", False),
    ],
)
def test_the_hosts_loopback_is_not_asked_in_any_spelling(server: str, asked: bool) -> None:
    assert dns_names.is_usable_server(server) is asked
