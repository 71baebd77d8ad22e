"""From a network's request to its bridge and its rules."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, ip_network

import pytest

from jaula.errors import InvalidRequest, JaulaError, NotAuthorized
from jaula.network import network_config
from jaula.network.firewall import antispoof, bridge_rules
from jaula.network.firewall.bridge_rules import Limits
from jaula.network.ipam import Addresses, link_local_address, parse_pools
from jaula.spec.network_record import NetworkRecord, Pool

NETWORK = NetworkRecord("shop", "ab" * 32, 0, "br-abababababab")


def test_a_subnet_is_completed_with_its_first_address_as_gateway() -> None:
    result = network_config.check_pools([Pool("10.0.0.0/24"), Pool("fd00:1::/64")], [], ipv6=True)
    assert result == (Pool("10.0.0.0/24", "10.0.0.1"), Pool("fd00:1::/64", "fd00:1::1"))
    assert (
        len(network_config.check_pools([Pool("10.0.0.0/24"), Pool("fd00::/64")], [], ipv6=False))
        == 1
    )
    assert network_config.check_pools([Pool("")], [], ipv6=False) == ()


@pytest.mark.parametrize("taken", ["10.0.0.0/8", "10.0.0.128/25", "10.0.0.0/24"])
def test_a_subnet_that_overlaps_is_refused_with_dockers_words(taken: str) -> None:
    with pytest.raises(NotAuthorized) as caught:
        network_config.check_pools([Pool("10.0.0.0/24")], [ip_network(taken)], ipv6=False)
    assert caught.value.message == "Pool overlaps with other one on this address space"
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "pool",
    [
        Pool("", "10.0.0.1"),
        Pool("10.0.0.0/33"),
        Pool("nonsense"),
        Pool("10.0.0.0/24", "10.0.1.1"),
        Pool("10.0.0.0/24", "x"),
        Pool("10.0.0.0/24", ip_range="10.0.1.0/28"),
        Pool("10.0.0.0/24", ip_range="fd00::/64"),
        Pool("10.0.0.0/24", ip_range="x"),
        Pool("10.0.0.0/24", auxiliary={"a": "10.0.1.1"}),
        Pool("fe80::/64"),
    ],
)
def test_invalid_pools_are_refused(pool: Pool) -> None:
    with pytest.raises(InvalidRequest):
        network_config.check_pools([pool], [], ipv6=True)


def test_two_subnets_of_one_family_are_refused() -> None:
    pools = [Pool("10.0.0.0/24"), Pool("10.0.1.0/24")]
    with pytest.raises(NotAuthorized, match="macvlan driver doesn't support multiple subnets"):
        network_config.check_pools(pools, [], ipv6=False, driver="macvlan")
    assert network_config.check_pools(pools, [], ipv4=False, ipv6=False) == ()


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (Pool("10.0.0.9/24"), "invalid subnet 10.0.0.9/24: it should be 10.0.0.0/24"),
        (Pool("10.0.0.0"), "invalid subnet 10.0.0.0: invalid CIDR block notation"),
        (
            Pool("10.0.0.0/255.0.0.0"),
            "invalid subnet 10.0.0.0/255.0.0.0: invalid CIDR block notation",
        ),
        (
            Pool("10.0.0.0/24", "fd00::1", "10.0.0.3/23", {"a": "x", "b": "10.0.1.1"}),
            (
                "* invalid ip-range 10.0.0.3/23: CIDR block is bigger than its parent subnet"
                " 10.0.0.0/24\n"
                "* invalid ip-range 10.0.0.3/23: it should be 10.0.0.0/23\n"
                "* invalid gateway fd00::1: parent subnet is an IPv4 block\n"
                "* invalid auxiliary address a: invalid address\n"
                "* invalid auxiliary address b: parent subnet 10.0.0.0/24 doesn't contain this"
                " address"
            ),
        ),
        (
            Pool("fd00::/64", ip_range="fd01::/80"),
            "invalid ip-range fd01::/80: parent subnet fd00::/64 doesn't contain ip-range",
        ),
    ],
)
def test_every_error_of_a_pool_is_reported_in_dockers_words(pool: Pool, expected: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        network_config.check_pools([pool], [], ipv6=True)
    assert caught.value.message == f"invalid network config:\n{expected}"


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (Pool("10.0.0.0/24", "10.0.0.0"), "gateway (10.0.0.0)"),
        (Pool("10.0.0.0/24", "10.0.0.255"), "gateway (10.0.0.255)"),
        (Pool("fd00::/64", "fd00::"), "gateway (fd00::)"),
        (Pool("10.0.0.0/24", auxiliary={"a": "10.0.0.1"}), "ip address (a:10.0.0.1)"),
        (
            Pool("10.0.0.0/24", auxiliary={"a": "10.0.0.7", "b": "10.0.0.7"}),
            "ip address (b:10.0.0.7)",
        ),
    ],
)
def test_an_address_of_a_pool_that_has_another_use_is_refused(pool: Pool, expected: str) -> None:
    with pytest.raises(JaulaError) as caught:
        network_config.check_pools([pool], [], ipv6=True)
    assert caught.value.message.endswith(f"{expected}: Address already in use")


def test_an_auxiliary_address_outside_the_range_is_not_allocated() -> None:
    pool = Pool("10.0.0.0/24", "10.0.0.1", "10.0.0.64/26", {"a": "10.0.0.1"})
    assert network_config.check_pools([pool], [], ipv6=False) == (pool,)


def test_an_ipv6_network_gets_its_own_unique_local_subnet() -> None:
    assert network_config.add_ipv6_subnet(NETWORK) == NETWORK
    six = network_config.add_ipv6_subnet(NetworkRecord("shop", "ab" * 32, 0, "br-x", ipv6=True))
    pool = six.ipv6_pool
    assert pool is not None
    assert pool.subnet == "fdab:abab:abab:abab::/64"
    assert pool.gateway == "fdab:abab:abab:abab::1"
    assert network_config.add_ipv6_subnet(six) == six
    other = network_config.add_ipv6_subnet(NetworkRecord("b", "cd" * 32, 0, "br-y", ipv6=True))
    assert other.ipv6_pool != pool


def test_the_bridge_plan_is_derived_from_the_pools() -> None:
    pool = parse_pools("172.30.0.0/15")
    assert network_config.bridge_plan(NETWORK, pool).ipv4.fixed is None
    requested = NetworkRecord(
        *("shop", "ab" * 32, 0, "br-x"),
        pools=(
            Pool("10.0.0.0/24", "10.0.0.254", "10.0.0.16/28", {"p": "10.0.0.17"}),
            Pool("fd00::/64", "fd00::1"),
        ),
        mtu=1400,
        ipv6=True,
    )
    plan = network_config.bridge_plan(requested, pool)
    assert (str(plan.ipv4.fixed), str(plan.ipv4.gateway), plan.mtu) == (
        "10.0.0.0/24",
        "10.0.0.254",
        1400,
    )
    assert (plan.gateway6, plan.prefix6) == ("fd00::1", 64)
    addresses = plan.ipv4.addresses(IPv4Network("10.0.0.0/24"))
    assert [str(addresses.allocate()) for _ in range(2)] == ["10.0.0.16", "10.0.0.18"]
    six = network_config.addresses6(requested)
    assert six is not None
    assert str(six.allocate()) == "fd00::2"
    assert network_config.addresses6(NETWORK) is None


def test_the_chosen_subnet_is_recorded_once() -> None:
    result = network_config.with_subnet(NETWORK, Addresses(IPv4Network("172.30.0.0/20")))
    assert result.pools == (Pool("172.30.0.0/20", "172.30.0.1"),)
    assert network_config.with_subnet(result, Addresses(IPv4Network("10.0.0.0/20"))) == result


def test_the_link_local_address_is_derived_from_the_mac() -> None:
    assert link_local_address("02:42:ac:11:00:02") == IPv6Address("fe80::42:acff:fe11:2")


def test_a_network_without_the_option_publishes_like_the_engine() -> None:
    silent = network_config.limits(NETWORK)
    assert not silent.past_firewall
    assert network_config.limits(NETWORK, past_firewall=True).past_firewall
    closed = NetworkRecord("shop", "ab" * 32, 0, "br-x", past_firewall=False)
    assert not network_config.limits(closed, past_firewall=True).past_firewall
    opened = NetworkRecord("shop", "ab" * 32, 0, "br-x", past_firewall=True)
    assert network_config.limits(opened).past_firewall


def test_network_options_change_the_rules() -> None:
    subnet = IPv4Network("10.0.0.0/24")
    usual = bridge_rules.ruleset("br-x", subnet, [])
    assert 'oifname != "br-x" ip saddr 10.0.0.0/24 masquerade' in usual
    bare = bridge_rules.ruleset("br-x", subnet, [], Limits(masquerade=False))
    assert 'oifname != "br-x" ip saddr' not in bare
    inner = bridge_rules.ruleset("br-x", subnet, [], Limits(internal=True))
    assert "ip daddr != 10.0.0.0/24 drop" in inner
    assert 'oifname != "br-x" accept' not in inner.replace('iifname != "br-x" oifname', "")
    apart = bridge_rules.ruleset("br-x", subnet, [], Limits(icc=False))
    assert 'iifname "br-x" drop' in apart
    assert "nd-router-advert" in antispoof.ruleset("br-x", [])
    parted = NetworkRecord("shop", "ab" * 32, 0, "br-x", icc=False)
    assert network_config.bridge_plan(parted, ()).isolated
    assert not network_config.bridge_plan(NETWORK, ()).isolated
