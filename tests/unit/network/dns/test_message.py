"""DNS messages and names, including hostile input."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.network.dns import container_names, internal_addresses, message
from jaula.spec import egress
from jaula.spec.endpoint_record import Endpoint


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
    """Return (rcode, number of answers, truncated, id)."""
    identity, flags, _, answers, _, _ = struct.unpack_from(">HHHHHH", data)
    assert flags & 0x8000
    return flags & 0xF, answers, flags >> 9 & 1, identity


def test_a_name_is_converted_to_lower_case() -> None:
    query = message.parse(ask("WeB.Shop", message.AAAA))
    assert (query.name, query.type, query.error, query.size) == ("web.shop", message.AAAA, 0, 512)
    assert message.parse(extended("web", 4096)).size == 4096
    assert message.parse(extended("web", 10)).size == 512


def test_an_answer_has_the_addresses_of_the_queried_type() -> None:
    both = ["10.0.0.2", "fd00::2"]
    four = message.answer(message.parse(ask("web")), both)
    assert head(four) == (0, 1, 0, 7)
    assert four.endswith(b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x0a\0\0\2")
    six = message.answer(message.parse(ask("web", message.AAAA)), both)
    assert six.endswith(b"\0\x10\xfd" + bytes(14) + b"\2")
    assert head(message.answer(message.parse(ask("web", message.ANY)), both))[1] == 2


def test_a_known_name_without_such_an_address_has_an_empty_answer() -> None:
    for kind in (message.AAAA, 15, 33, 65):
        assert head(message.answer(message.parse(ask("web", kind)), ["10.0.0.2"])) == (0, 0, 0, 7)


def test_an_answer_larger_than_a_datagram_is_truncated_and_flagged() -> None:
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


def test_a_pointer_has_the_name_and_the_network() -> None:
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
def test_reverse_names_are_parsed(name: str, address: str | None) -> None:
    assert message.parse_reverse_name(name) == address


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (ask("web", flags=0x1000), message.NOTIMP),  # a status request
        (ask("web")[:-1], message.FORMERR),
        (ask("web")[:14], message.FORMERR),
        (ask("web")[:12] + b"\xc0\x0c\0\1\0\1", message.FORMERR),  # a pointer to itself
        (ask("web")[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1", message.FORMERR),
        (ask("web")[:12] + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1", message.FORMERR),
        (struct.pack(">HHHHHH", 7, 0, 0, 0, 0, 0), message.FORMERR),
        (struct.pack(">HHHHHH", 7, 0, 2, 0, 0, 0) + ask("web")[12:], message.FORMERR),
        (extended("web", 512)[:-6], message.FORMERR),
    ],
)
def test_an_unsupported_query_has_an_error_code(data: bytes, error: int) -> None:
    query = message.parse(data)
    assert query.error == error
    found = container_names.answer(query, [], lambda network: (), limit=512)
    assert found is not None
    assert head(found)[0] == error


@pytest.mark.parametrize("data", [b"", b"x" * 11, ask("web", flags=0x8000)])
def test_a_message_that_is_not_a_query_gets_no_answer(data: bytes) -> None:
    with pytest.raises(message.MalformedMessage):
        message.parse(data)


def test_a_label_with_a_dot_or_odd_bytes_is_not_a_container_name() -> None:
    data = ask("web")[:12] + b"\7web.net\0\0\1\0\1"
    assert message.parse(data).name == ""
    assert message.parse(ask("web")[:12] + b"\1\xff\0\0\1\0\1").name == ""
    assert message.parse(ask("web", klass=3)).name == ""


@given(st.binary(max_size=600))
def test_any_bytes_are_a_query_or_a_malformed_message(data: bytes) -> None:
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
def test_only_the_answer_to_the_query_is_accepted(data: bytes, identity: int) -> None:
    query = message.parse(ask("example.org"))
    right = message.with_id(message.answer(query, ["10.0.0.1"]), identity)
    assert message.is_answer_to(right, identity, query)
    assert not message.is_answer_to(right, identity ^ 1, query)
    assert not message.is_answer_to(message.with_id(ask("example.org"), identity), identity, query)
    other = message.answer(message.parse(ask("example.net")), ["10.0.0.1"])
    assert not message.is_answer_to(message.with_id(other, identity), identity, query)
    message.is_answer_to(data, identity, query)


# -- names -------------------------------------------------------------------------------------


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
    return [e.ipv4 for e in container_names.find_endpoints(name, OWN, lambda n: NETWORKS[n])]


def test_names_are_resolved_in_the_containers_networks_only() -> None:
    assert called("web") == ["10.0.0.2"]
    assert called("www") == ["10.0.0.2"]
    assert called("web.back") == ["10.1.0.2"]
    assert called("db") == called("sql") == called("db.back") == ["10.1.0.3"]
    assert called("pool") == ["10.0.0.3", "10.0.0.4"]
    for unknown in ("secret", "secret.other", "db.front", "nobody", "", "front", ".front"):
        assert called(unknown) == []


def test_a_link_alias_is_known_to_its_container_only() -> None:
    own = [msgspec.structs.replace(OWN[0], links={"store": "web", "db": "www"}), *OWN[1:]]

    def found(name: str, asker: list[Endpoint]) -> list[str]:
        return [e.ipv4 for e in container_names.find_endpoints(name, asker, lambda n: NETWORKS[n])]

    assert found("store", own) == found("store.front", own) == ["10.0.0.2"]
    assert found("db", own) == ["10.0.0.2"], "it comes before what another is called"
    assert found("store", OWN) == []


def answered(name: str, kind: int = message.A) -> bytes | None:
    return container_names.answer(
        message.parse(ask(name, kind)), OWN, lambda n: NETWORKS[n], limit=512
    )


def test_an_unknown_name_is_forwarded() -> None:
    assert answered("example.org") is None
    assert answered("1.0.0.10.in-addr.arpa", message.PTR) is None
    assert answered("db", message.AAAA) is not None


def test_reverse_names() -> None:
    found = answered("3.0.1.10.in-addr.arpa", message.PTR)
    assert found is not None
    assert found.endswith(b"\2db\4back\0")
    assert answered("2.0.2.10.in-addr.arpa", message.PTR) is None


def test_answers_rotate_the_addresses() -> None:
    firsts = set()
    for identity in range(4):
        query = message.parse(message.with_id(ask("pool"), identity))
        found = container_names.answer(query, OWN, lambda n: NETWORKS[n], limit=512)
        assert found is not None
        firsts.add(found[-4:])
    assert len(firsts) == 2


def test_queries_are_forwarded_only_if_a_network_is_not_internal() -> None:
    assert container_names.may_forward(OWN)
    assert not container_names.may_forward(NETWORKS["back"][:1])
    assert not container_names.may_forward([])


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
def test_the_hosts_loopback_is_never_queried_in_any_notation(server: str, asked: bool) -> None:
    assert container_names.is_usable_server(server) is asked


def response(*records: tuple[int, int, bytes], name: bytes = b"\xc0\x0c") -> bytes:
    """Return an answer with (type, TTL, payload) records."""
    data = bytearray(ask("example.org"))
    data[2:4], data[6:8] = b"\x81\x80", len(records).to_bytes(2, "big")
    for kind, ttl, payload in records:
        data += name + struct.pack(">HHIH", kind, 1, ttl, len(payload)) + payload
    return bytes(data)


def test_the_addresses_of_an_answer_are_read_with_their_ttl() -> None:
    six = bytes.fromhex("20010db8" + "0" * 23 + "1")
    data = response(
        (5, 60, labels("alias.example.org")), (message.A, 30, b"\xc0\0\2\1"), (message.AAAA, 9, six)
    )
    assert message.parse_addresses(data) == {"192.0.2.1": 30, "2001:db8::1": 9}
    own = message.answer(message.parse(ask("db")), ["10.0.0.2"])
    assert message.parse_addresses(own) == {"10.0.0.2": message.TTL}
    assert message.parse_addresses(response((message.A, 1 << 31, b"\1\2\3\4"))) == {"1.2.3.4": 0}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        response()[:-3],
        response((message.A, 1, b"\1\2\3")),
        response((message.A, 1, b"\1\2\3\4\5")),
        response((message.AAAA, 1, b"\1\2\3\4")),
        response((message.A, 1, b"\1\2\3\4"))[:-1],
        response((message.A, 1, b"\1\2\3\4"), name=b"\x3fshort"),
        struct.pack(">HHHHHH", 7, 0x8180, 65535, 65535, 0, 0),
        struct.pack(">HHHHHH", 7, 0x8180, 0, 1, 0, 0) + b"\xc0",
    ],
)
def test_a_malformed_answer_has_no_addresses(data: bytes) -> None:
    assert message.parse_addresses(data) == {}


@given(st.binary(max_size=200))
def test_no_answer_raises(data: bytes) -> None:
    message.parse_addresses(response() + data)
    message.parse_addresses(data)


def test_one_answer_has_a_limit_of_addresses() -> None:
    rows = [(message.A, 1, n.to_bytes(4, "big")) for n in range(1, 200)]
    assert len(message.parse_addresses(response(*rows))) == message.ADDRESS_LIMIT


def test_a_name_opens_no_address_of_the_container_or_its_link() -> None:
    hostile = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "::", "fe80::1"]
    hostile += ["::ffff:127.0.0.1", "ff02::1"]
    assert container_names.connectable(dict.fromkeys(hostile, 60)) == {}
    assert container_names.connectable({"10.0.0.1": 1, "2001:db8::1": 10**9, "192.0.2.1": 900}) == {
        "10.0.0.1": container_names.LEAST_TIME,
        "2001:db8::1": container_names.MOST_TIME,
        "192.0.2.1": 900,
    }


# -- queries and answers of a container with an egress list ---------------------------------------

LIST = ("tcp:example.org:443", "tcp:192.0.2.0/24:80", "dns:other.example")


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("example.org", message.A, message.NOERROR),
        ("example.org", 16, message.NOERROR),
        ("other.example", message.AAAA, message.NOERROR),
        ("a.example.org", message.A, message.REFUSED),
        ("", message.A, message.REFUSED),
        ("7.1.0.10.in-addr.arpa", message.PTR, message.NXDOMAIN),
        ("7.1.0.10.in-addr.arpa", message.A, message.REFUSED),
        ("7.2.0.10.in-addr.arpa", message.PTR, message.REFUSED),
        ("1.2.0.192.in-addr.arpa", message.PTR, message.REFUSED),
        ("1.1.0.10.7.1.0.10.in-addr.arpa", message.PTR, message.REFUSED),
    ],
)
def test_what_a_list_lets_through(name: str, kind: int, code: int) -> None:
    query = message.Query(1, 0, name, kind, b"")
    own = [msgspec.structs.replace(OWN[0], ipv4="10.0.1.5", prefix=24)]
    assert container_names.judge(query, own, egress.parse(LIST)) == code
    assert container_names.judge(query, own, None) == message.NOERROR
    assert container_names.judge(query, own, egress.parse(["dns:*"])) == message.NOERROR


def test_only_addresses_of_the_list_are_listed() -> None:
    addresses = ["192.0.2.9", "10.0.0.1", "fd00::1"]
    assert container_names.unlisted(addresses, egress.parse(LIST)) == ["10.0.0.1", "fd00::1"]


@pytest.mark.parametrize(
    ("item", "named"),
    [("10.0.0.1", True), ("10.0.0.1/32", True), ("10.0.0.0/31", False), ("0.0.0.0/0", False),
     ("10.0.0.2", False), ("[::]/0", False), ("example.org", False)],
)  # fmt: skip
def test_a_network_names_no_address(item: str, named: bool) -> None:
    assert container_names.is_named("10.0.0.1", egress.parse([f"tcp:{item}:80"])) is named


@given(st.binary(max_size=600))
def test_a_query_is_written_anew_from_what_was_parsed(data: bytes) -> None:
    try:
        query = message.parse(data)
    except message.MalformedMessage:
        return
    if query.error:
        return
    written = message.parse(message.plain_query(query))
    assert (written.name, written.type, written.size) == (query.name, query.type, query.size)
    assert len(message.plain_query(query)) <= 12 + len(query.question) + 11
    assert written.question.lower() == query.question.lower()


@given(st.binary(max_size=80), st.binary(max_size=600))
def test_the_client_gets_its_own_question_back(tail: bytes, answer: bytes) -> None:
    query = message.parse(ask("eXample.org"))
    sent = message.plain_query(query)
    real = sent[: 12 + len(query.question)] + tail
    assert message.with_question(real, query) == sent[:12] + query.question + tail
    changed = message.with_question(answer, query)
    assert len(changed) == len(answer)
    assert changed == answer or changed.lower() == answer.lower()


@given(st.binary(max_size=1200))
def test_addresses_of_any_bytes_are_judged(data: bytes) -> None:
    for text in message.parse_addresses(data):
        assert internal_addresses.is_internal(text, ()) in (True, False)
