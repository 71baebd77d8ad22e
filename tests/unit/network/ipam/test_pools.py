"""Pools of subnets: what they hold, and the one that a network gets."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.config import EngineConfig
from jaula.errors import InvalidRequest, JaulaError
from jaula.network import default_network
from jaula.network.ipam.pools import address_pool, choose_subnet, choose_subnet6, parse_pools


@pytest.mark.parametrize(
    "text",
    ["x", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8@31", "10.0.0.0/24@20", "10.0.0.0/8@7",
     "10.0.0.0/8@", "10.0.0.0/8@a", "fd00::/8@126", "fd00::/64@48"],
)  # fmt: skip
def test_a_pool_that_holds_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid address pool"):
        parse_pools(text)


def test_a_pool_has_a_size_of_subnets() -> None:
    pools = parse_pools("10.0.0.0/8@24, 192.168.0.0/24,fd00::/48")
    assert [pool.size for pool in pools] == [24, 24, 64]
    assert choose_subnet(pools, []) == IPv4Network("10.0.0.0/24")
    assert choose_subnet(pools, [IPv4Network("10.0.0.0/9")]) == IPv4Network("10.128.0.0/24")
    assert choose_subnet(pools, [IPv4Network("10.0.0.0/8")]) == IPv4Network("192.168.0.0/24")
    assert choose_subnet6(pools, [IPv6Network("fd00::/64")]) == IPv6Network("fd00:0:0:1::/64")


def test_a_pool_that_is_used_up_is_named_with_what_to_do() -> None:
    with pytest.raises(
        JaulaError, match=r"no free subnet in 10\.9\.0\.0/24 in subnets of /26"
    ) as e:
        choose_subnet(parse_pools("10.9.0.0/24@26"), [IPv4Network("10.9.0.0/23")])
    assert "default-address-pools" in (e.value.hint or "")
    with pytest.raises(JaulaError, match="an empty pool"):
        choose_subnet(parse_pools("fd00::/48"), [])
    with pytest.raises(JaulaError, match="no free subnet in fd00::/64"):
        choose_subnet6(parse_pools("fd00::/64"), [IPv6Network("fd00::/16")])
    assert choose_subnet6(parse_pools("10.0.0.0/8"), []) is None


def test_a_pool_of_more_subnets_than_can_be_counted_is_searched_at_once() -> None:
    taken = [IPv6Network("fd00::/9"), IPv6Network("fd80::/10")]
    assert choose_subnet6([address_pool("fd00::/8", 64)], taken) == IPv6Network("fdc0::/64")


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(16, 28)), max_size=12))
def test_a_subnet_that_is_chosen_overlaps_nothing(rows: list[tuple[int, int]]) -> None:
    taken = [IPv4Network(((10 << 24) | (n << 12), p), strict=False) for n, p in rows]
    pools = parse_pools("10.0.0.0/12@22")
    try:
        found = choose_subnet(pools, taken)
    except JaulaError:
        free = IPv4Network("10.0.0.0/12").subnets(new_prefix=22)
        assert all(any(s.overlaps(t) for t in taken) for s in free)
    else:
        assert not any(found.overlaps(other) for other in taken)


def test_the_default_network_has_ipv6_where_that_is_asked_for() -> None:
    assert default_network.default_bridge_plan(EngineConfig(), ()).addresses6() is None
    chosen = default_network.default_bridge_plan(EngineConfig(bridge_ipv6=True), ()).addresses6()
    again = default_network.default_bridge_plan(EngineConfig(bridge_ipv6=True), ()).addresses6()
    assert chosen is not None
    assert again is not None
    assert chosen.subnet == again.subnet, "the next engine has the same"
    assert chosen.subnet.prefixlen == 64
    assert str(chosen.subnet).startswith("fd")
    other = default_network.default_bridge_plan(
        EngineConfig(bridge_ipv6=True, bridge="jaula1"), ()
    ).addresses6()
    assert other is not None
    assert other.subnet != chosen.subnet
    asked = EngineConfig(bridge_ipv6=True, bridge_subnet6="fd99::/64")
    assert default_network.default_bridge_plan(asked, ()).gateway6 == "fd99::1"
