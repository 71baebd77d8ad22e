"""IPAM: address pools, the subnet of a network, and the addresses of its containers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.config import EngineConfig
from jaula.errors import InvalidRequest, JaulaError, NotAuthorized
from jaula.network import network_config
from jaula.network.ipam import (
    Addresses,
    address_pool,
    choose_subnet,
    choose_subnet6,
    mac_from_address,
    parse_pools,
    parse_subnet,
)


@pytest.mark.parametrize(
    "text",
    ["x", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8@31", "10.0.0.0/24@20", "10.0.0.0/8@7",
     "10.0.0.0/8@", "10.0.0.0/8@a", "fd00::/8@126", "fd00::/64@48"],
)  # fmt: skip
def test_a_pool_without_room_for_a_subnet_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid address pool"):
        parse_pools(text)


def test_a_pool_has_a_subnet_size() -> None:
    pools = parse_pools("10.0.0.0/8@24, 192.168.0.0/24,fd00::/48")
    assert [pool.size for pool in pools] == [24, 24, 64]
    assert choose_subnet(pools, []) == IPv4Network("10.0.0.0/24")
    assert choose_subnet(pools, [IPv4Network("10.0.0.0/9")]) == IPv4Network("10.128.0.0/24")
    assert choose_subnet(pools, [IPv4Network("10.0.0.0/8")]) == IPv4Network("192.168.0.0/24")
    assert choose_subnet6(pools, [IPv6Network("fd00::/64")]) == IPv6Network("fd00:0:0:1::/64")


def test_an_exhausted_pool_is_reported_with_a_hint() -> None:
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


def test_a_huge_pool_is_searched_quickly() -> None:
    taken = [IPv6Network("fd00::/9"), IPv6Network("fd80::/10")]
    assert choose_subnet6([address_pool("fd00::/8", 64)], taken) == IPv6Network("fdc0::/64")


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(16, 28)), max_size=12))
def test_a_chosen_subnet_overlaps_no_other(rows: list[tuple[int, int]]) -> None:
    taken = [IPv4Network(((10 << 24) | (n << 12), p), strict=False) for n, p in rows]
    pools = parse_pools("10.0.0.0/12@22")
    try:
        result = choose_subnet(pools, taken)
    except JaulaError:
        free = IPv4Network("10.0.0.0/12").subnets(new_prefix=22)
        assert all(any(s.overlaps(t) for t in taken) for s in free)
    else:
        assert not any(result.overlaps(other) for other in taken)


def test_the_default_network_has_ipv6_if_enabled() -> None:
    assert network_config.default_bridge_plan(EngineConfig(), ()).addresses6() is None
    chosen = network_config.default_bridge_plan(EngineConfig(bridge_ipv6=True), ()).addresses6()
    again = network_config.default_bridge_plan(EngineConfig(bridge_ipv6=True), ()).addresses6()
    assert chosen is not None
    assert again is not None
    assert chosen.subnet == again.subnet, "the next engine has the same"
    assert chosen.subnet.prefixlen == 64
    assert str(chosen.subnet).startswith("fd")
    other = network_config.default_bridge_plan(
        EngineConfig(bridge_ipv6=True, bridge="jaula1"), ()
    ).addresses6()
    assert other is not None
    assert other.subnet != chosen.subnet
    requested = EngineConfig(bridge_ipv6=True, bridge_subnet6="fd99::/64")
    assert network_config.default_bridge_plan(requested, ()).gateway6 == "fd99::1"


POOL = parse_pools("172.30.0.0/15,10.208.0.0/12")


def test_the_first_subnet_of_the_pool_is_chosen_on_an_empty_host() -> None:
    assert choose_subnet(POOL, []) == IPv4Network("172.30.0.0/20")


def test_a_smaller_or_larger_route_blocks_a_subnet() -> None:
    taken = [IPv4Network("172.30.5.0/24"), IPv4Network("172.30.16.0/20")]
    assert choose_subnet(POOL, taken) == IPv4Network("172.30.32.0/20")
    assert choose_subnet(POOL, [IPv4Network("172.0.0.0/8")]) == IPv4Network("10.208.0.0/20")


def test_a_default_route_blocks_no_subnet() -> None:
    assert choose_subnet(POOL, [IPv4Network("0.0.0.0/0")]) == IPv4Network("172.30.0.0/20")


def test_an_exhausted_pool_has_a_hint() -> None:
    with pytest.raises(JaulaError, match="no free subnet in") as error:
        choose_subnet(parse_pools("10.0.0.0/24"), [IPv4Network("10.0.0.0/8")])
    assert error.value.hint is not None
    with pytest.raises(JaulaError, match="empty pool"):
        choose_subnet((), [])


def test_a_pool_smaller_than_a_subnet_is_used_whole() -> None:
    assert choose_subnet(parse_pools("10.9.9.0/28"), []) == IPv4Network("10.9.9.0/28")


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/33", "10.0.0.0/31", "::/64", "0.0.0.0/0"])
def test_an_invalid_subnet_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid subnet"):
        parse_subnet(text)


def test_the_mac_is_derived_from_the_address_like_dockers() -> None:
    assert mac_from_address(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"


def test_addresses_of_ipv6_with_the_same_end_have_different_macs() -> None:
    macs = {mac_from_address(IPv6Address(text)) for text in ("fd00::2", "fd00::1:0:0:2", "fd01::2")}
    assert len(macs) == 3
    assert all(mac.startswith("02:42:") for mac in macs)


def test_addresses_are_allocated_in_turn_and_released_ones_last() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/29"))
    first = [str(pool.allocate()) for _ in range(3)]
    assert first == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    pool.release("10.0.0.2")
    assert [str(pool.allocate()) for _ in range(3)] == ["10.0.0.5", "10.0.0.6", "10.0.0.2"]
    with pytest.raises(JaulaError, match="no available IPv4 address in"):
        pool.allocate()
    pool.release("10.0.0.4")
    assert str(pool.allocate()) == "10.0.0.4"


@pytest.mark.parametrize("requested", ["10.0.1.1", "x", "", "::1"])
def test_an_address_outside_the_subnet_is_refused(requested: str) -> None:
    with pytest.raises(InvalidRequest):
        Addresses(IPv4Network("10.0.0.0/29")).allocate(requested)


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.1", "10.0.0.7"])
def test_gateway_network_and_broadcast_address_are_never_allocated(address: str) -> None:
    pool = Addresses(IPv4Network("10.0.0.0/29"))
    pool.release(address)
    with pytest.raises(NotAuthorized, match=r"^Address already in use$"):
        pool.allocate(address)


@given(st.lists(st.one_of(st.none(), st.integers(0, 13)), max_size=60))
def test_no_address_is_allocated_twice(actions: list[int | None]) -> None:
    pool = Addresses(IPv4Network("10.0.0.0/28"))
    held: list[str] = []
    for action in actions:
        if action is None and len(held) < 13:
            address = str(pool.allocate())
            assert address not in held
            held.append(address)
        elif action is not None and action < len(held):
            pool.release(held.pop(action))
