"""The text of nftables rules and elements, and netlink messages."""

from __future__ import annotations

from ipaddress import IPv4Network

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from jaula.network import udp_flows
from jaula.network.firewall import antispoof, bridge_rules
from jaula.network.firewall.bridge_rules import Limits
from jaula.network.firewall.nft_command import NFT_MSG_DELTABLE, message_types
from jaula.spec.endpoint_record import Endpoint, PublishedPort

PORTS = (PublishedPort(80, "tcp", "0.0.0.0", 8080), PublishedPort(53, "udp", "127.0.0.1", 5353))
ENDPOINT = Endpoint(
    "bridge", "e" * 64, "c" * 64, "web", "172.30.0.2", 20, "172.30.0.1", "02:42:ac:1e:00:02",
    "jleeeeeeeeee", "eth0", PORTS,
)  # fmt: skip


def test_tables_are_named_after_the_bridge_and_never_a_keyword() -> None:
    assert bridge_rules.table_name("jaula0") == "jaula0"
    assert bridge_rules.table_name("ip") == "jaula_ip"
    assert antispoof.port_group("jaula0") != antispoof.port_group("jaula1") != 0


def test_a_published_port_is_an_element_of_a_map_and_of_a_set() -> None:
    assert bridge_rules.port_elements("jaula0", ENDPOINT, PORTS, verb="add") == (
        "add element ip jaula0 published_everywhere { tcp . 8080 : 172.30.0.2 . 80 }\n"
        "add element ip jaula0 open_everywhere { tcp . 8080 }\n"
        "add element ip jaula0 published { 127.0.0.1 . udp . 5353 : 172.30.0.2 . 53 }\n"
        "add element ip jaula0 open { 127.0.0.1 . udp . 5353 }\n"
    )


def test_an_ipv6_port_is_in_the_ip6_table_if_the_container_has_ipv6() -> None:
    port = PublishedPort(80, "tcp", "::", 8080)
    assert bridge_rules.port_elements("jaula0", ENDPOINT, [port], verb="add") == ""
    both = msgspec.structs.replace(ENDPOINT, ipv6="fd00::2")
    assert bridge_rules.port_elements("jaula0", both, [port], verb="delete") == (
        "delete element ip6 jaula0 published_everywhere { tcp . 8080 : fd00::2 . 80 }\n"
        "delete element ip6 jaula0 open_everywhere { tcp . 8080 }\n"
    )


def test_ports_bypass_the_input_rules_only_if_requested() -> None:
    subnet = IPv4Network("172.30.0.0/20")
    usual = bridge_rules.ruleset("jaula0", subnet, [])
    assert "hook prerouting priority dstnat" not in usual
    assert "chain judged" in usual
    past = bridge_rules.ruleset("jaula0", subnet, [], Limits(past_firewall=True))
    assert "hook prerouting priority dstnat" in past
    assert "chain judged" not in past
    cannot = bridge_rules.ruleset("jaula0", subnet, [], Limits(hands_over=False))
    assert "hook prerouting priority dstnat" not in cannot
    assert "chain judged" not in cannot


def test_a_kernel_that_refuses_writes_to_the_header_hands_over_without_them() -> None:
    steps = list(bridge_rules.within_kernel(Limits(icc=False)))
    assert [(step.fragments, step.hands_over, step.icc) for step in steps] == [
        (True, True, False),
        (False, True, False),
        (False, False, False),
    ]
    first, second, _ = (bridge_rules.ruleset("jaula0", IPv4Network("172.30.0.0/20"), [], step)
                        for step in steps)  # fmt: skip
    assert first.replace(" ip frag-off set ip frag-off & 0xbfff", "") == second != first
    for least in (Limits(past_firewall=True), steps[-1]):
        assert list(bridge_rules.within_kernel(least)) == [least]


def test_a_container_is_one_element() -> None:
    sender = b"jleeeeeeeeee\0\0\0\0" + bytes.fromhex("0242ac1e00020000")
    assert antispoof.endpoint_keys(ENDPOINT) == [("endpoints", sender + bytes((172, 30, 0, 2)))]


def test_an_endpoint_without_ipv4_is_in_the_set_of_ipv6_alone() -> None:
    six = msgspec.structs.replace(ENDPOINT, ipv4="", ipv6="fd00::2", ports=())
    keys = antispoof.endpoint_keys(six)
    assert [name for name, _ in keys] == ["endpoints6", "endpoints6"]
    assert [key[24:].hex() for _, key in keys] == [
        "fd000000000000000000000000000002",
        "fe800000000000000042acfffe1e0002",
    ]
    assert ". 02:42:ac:1e:00:02 .  }" not in antispoof.ruleset("jaula0", [six])


def test_the_table_of_a_bridge_without_ipv4_drops_all_of_it() -> None:
    text = bridge_rules.ruleset("jaula0", None, [ENDPOINT])
    assert 'iifname "jaula0" drop' in text
    assert 'oifname "jaula0" drop' in text
    assert "elements" not in text
    assert "accept\n" not in text


def test_the_table_has_the_elements_of_every_endpoint() -> None:
    text = bridge_rules.ruleset("jaula0", IPv4Network("172.30.0.0/20"), [ENDPOINT])
    assert "elements = { tcp . 8080 : 172.30.0.2 . 80 }" in text
    assert "elements = { 127.0.0.1 . udp . 5353 : 172.30.0.2 . 53 }" in text
    assert text.index("delete table ip jaula0") < text.index("chain guard")
    empty = bridge_rules.ruleset("jaula0", IPv4Network("172.30.0.0/20"), [])
    assert "elements" not in empty


def test_forward_chains_with_policy_drop_are_detected() -> None:
    listing = """{"nftables": [{"metainfo": {}},
      {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward",
                 "policy": "drop"}},
      {"chain": {"family": "ip", "table": "jaula0", "name": "forward", "hook": "forward",
                 "policy": "drop"}},
      {"chain": {"family": "ip", "table": "a", "name": "in", "hook": "input", "policy": "drop"}},
      {"chain": {"family": "ip", "table": "a", "name": "plain"}}]}"""
    assert bridge_rules.foreign_drops(listing, "jaula0") == ["ip filter FORWARD"]
    assert bridge_rules.foreign_drops("", "jaula0") == []


def test_a_missing_table_is_detected_in_the_listing() -> None:
    both = "table ip jaula0\ntable ip6 jaula0\n"
    assert not bridge_rules.tables_missing(both, "jaula0", ipv6=True)
    assert bridge_rules.tables_missing("table ip jaula0\n", "jaula0", ipv6=True)
    assert not bridge_rules.tables_missing("table ip jaula0\n", "jaula0")
    assert bridge_rules.tables_missing("table ip jaula00\n", "jaula0")


def test_truncated_and_hostile_netlink_messages_are_ignored() -> None:
    message = b"\x10\0\0\0" + NFT_MSG_DELTABLE.to_bytes(2, "little") + bytes(10)
    assert message_types(message * 2) == [NFT_MSG_DELTABLE] * 2
    assert message_types(message + message[:15]) == [NFT_MSG_DELTABLE]
    assert message_types(bytes(64)) == []
    assert message_types(b"\xff" * 64) == []


@given(st.binary(max_size=200))
def test_any_dump_entry_is_ignored_or_deleted(data: bytes) -> None:
    request = udp_flows.delete_request(data, 5353)
    assert request is None or request.about == "delete flow to udp port 5353"
