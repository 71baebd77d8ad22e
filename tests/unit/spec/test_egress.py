"""The grammar of egress lists, with hostile input."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.spec import egress


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("tcp:192.0.2.10:443", "tcp:192.0.2.10:443"),
        ("udp:10.1.2.3/8:123", "udp:10.0.0.0/8:123"),
        ("tcp:[2001:DB8::1]:8000-8010", "tcp:[2001:db8::1]:8000-8010"),
        ("tcp:2001:db8::1:443", "tcp:[2001:db8::1]:443"),
        ("tcp:[2001:db8::]/32:*", "tcp:[2001:db8::/32]:*"),
        ("tcp:Example.ORG.:443", "tcp:example.org:443"),
        ("udp:db:5432", "udp:db:5432"),
        ("tcp:_srv.example.org:80-80", "tcp:_srv.example.org:80"),
        ("dns:Example.ORG.", "dns:example.org"),
        ("dns:_http._tcp.example.org", "dns:_http._tcp.example.org"),
        ("dns:*", "dns:*"),
    ],
)
def test_an_item_has_one_form(item: str, text: str) -> None:
    parsed = egress.parse_item(item)
    assert str(parsed) == text
    assert egress.parse_item(text) == parsed


@pytest.mark.parametrize(
    "item",
    [
        *("", ":", "::", "tcp", "tcp:", "tcp::443", "tcp:a", "tcp:a:", "sctp:a:1", "TCP:a:1"),
        *("tcp:a:0", "tcp:a:65536", "tcp:a:2-1", "tcp:a:-1", "tcp:a:1-", "tcp:a:+1", "tcp:a:1 "),
        *("tcp:a:\u0661", "tcp:a:0x10", "tcp:a:99999999999999999999"),
        *("tcp:1.2.3:80", "tcp:1.2.3.4.5:80", "tcp:10.0.0.0/33:80", "tcp:256.1.1.1:80"),
        *(
            "dns",
            "dns:",
            "dns:*.example.org",
            "dns:**",
            "dns:a:53",
            "dns:10.0.0.1",
            "DNS:a",
            "dns:.",
        ),
        *("dns:.", "dns:a b", "dns:a\n", "dns:-a", "tcp:*:443", "udp:*:53", "dns:" + "a" * 64),
        *("tcp:[::1:80", "tcp:fe80::1%eth0:80", "tcp:a b:80", "tcp:a..b:80", "tcp:-a:80"),
        *("tcp:*.example.org:80", "tcp:a/b:80", "tcp:a\nb:80", "tcp:a;flush ruleset:80"),
        *("tcp:" + "a" * 64 + ":80", "tcp:" + "a." * 130 + "a:80", "tcp:\u00e9:80", "tcp:a\0:80"),
    ],
)
def test_a_malformed_item_is_an_error_with_the_grammar(item: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        egress.parse_item(item)
    assert "PROTOCOL:HOST:PORT" in (refusal.value.hint or "")


def test_a_list_has_no_duplicates_and_a_limit() -> None:
    assert len(egress.parse(["tcp:a:1", "tcp:A:1", "tcp:a.:1"])) == 1
    with pytest.raises(InvalidRequest, match="at most 1024"):
        egress.parse([f"tcp:a:{port}" for port in range(1, 1026)])


@pytest.mark.parametrize(
    ("items", "name", "permitted"),
    [
        ([], "example.org", False),
        (["tcp:example.org:443"], "example.org", True),
        (["udp:example.org:1-5"], "example.org", True),
        (["dns:example.org"], "example.org", True),
        (["dns:example.org"], "www.example.org", False),
        (["tcp:example.org:443"], "", False),
        (["tcp:0.0.0.0/0:*"], "example.org", False),
        (["tcp:0.0.0.0/0:*"], "", False),
        (["dns:*"], "example.org", True),
        (["dns:*"], "", True),
        (["dns:*"], "*", True),
        (["dns:example.org"], "*", False),
    ],
)
def test_a_list_permits_queries_for_its_names(items: list[str], name: str, permitted: bool) -> None:
    assert egress.permits_query(egress.parse(items), name) is permitted


@pytest.mark.parametrize(
    ("allowed", "wanted", "included"),
    [
        ("dns:*", "dns:a", True),
        ("dns:*", "dns:*", True),
        ("dns:a", "dns:a", True),
        ("dns:a", "dns:b", False),
        ("dns:a", "dns:*", False),
        ("tcp:a:80", "dns:a", True),
        ("tcp:a:80", "dns:*", False),
        ("dns:a", "tcp:a:80", False),
        ("dns:*", "tcp:a:80", False),
        ("tcp:0.0.0.0/0:*", "dns:a", False),
    ],
)
def test_what_an_item_includes_of_names(allowed: str, wanted: str, included: bool) -> None:
    items = egress.parse_item(allowed), egress.parse_item(wanted)
    assert egress.includes(*items) is included
