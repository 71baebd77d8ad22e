"""Address pools and hand-outs: what is avoided, what is given, and when there is none left."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import Conflict, InvalidRequest, JaulaError
from jaula.network.ipam.addresses import Addresses, mac_from_address, parse_subnet
from jaula.network.ipam.pools import choose_subnet, parse_pools

POOL = parse_pools("172.30.0.0/15,10.208.0.0/12")


def test_the_first_subnet_of_the_pool_is_chosen_on_an_empty_host() -> None:
    assert choose_subnet(POOL, []) == IPv4Network("172.30.0.0/20")


def test_a_route_inside_and_a_route_around_a_subnet_both_take_it() -> None:
    taken = [IPv4Network("172.30.5.0/24"), IPv4Network("172.30.16.0/20")]
    assert choose_subnet(POOL, taken) == IPv4Network("172.30.32.0/20")
    assert choose_subnet(POOL, [IPv4Network("172.0.0.0/8")]) == IPv4Network("10.208.0.0/20")


def test_a_default_route_takes_nothing() -> None:
    assert choose_subnet(POOL, [IPv4Network("0.0.0.0/0")]) == IPv4Network("172.30.0.0/20")


def test_an_exhausted_pool_says_what_to_do() -> None:
    with pytest.raises(JaulaError, match="no free subnet in") as found:
        choose_subnet(parse_pools("10.0.0.0/24"), [IPv4Network("10.0.0.0/8")])
    assert found.value.hint is not None
    with pytest.raises(JaulaError, match="empty pool"):
        choose_subnet((), [])


def test_a_pool_smaller_than_a_subnet_is_used_whole() -> None:
    assert choose_subnet(parse_pools("10.9.9.0/28"), []) == IPv4Network("10.9.9.0/28")


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/33", "10.0.0.0/31", "::/64", "0.0.0.0/0"])
def test_a_subnet_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid subnet"):
        parse_subnet(text)


def test_the_mac_follows_from_the_address_as_docker_has_it() -> None:
    assert mac_from_address(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"


def test_addresses_come_in_turn_and_a_returned_one_comes_last() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/29"))
    first = [str(pool.allocate()) for _ in range(3)]
    assert first == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    pool.release("10.0.0.2")
    assert [str(pool.allocate()) for _ in range(3)] == ["10.0.0.5", "10.0.0.6", "10.0.0.2"]
    with pytest.raises(JaulaError, match="no available IPv4 address in"):
        pool.allocate()
    pool.release("10.0.0.4")
    assert str(pool.allocate()) == "10.0.0.4"


@pytest.mark.parametrize("wanted", ["10.0.0.0", "10.0.0.7", "10.0.1.1", "x", "", "::1"])
def test_an_address_outside_the_subnet_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidRequest):
        Addresses(IPv4Network("10.0.0.0/29")).allocate(wanted)


def test_the_gateway_is_never_given_away() -> None:
    pool = Addresses(IPv4Network("10.0.0.0/29"))
    pool.release("10.0.0.1")
    with pytest.raises(Conflict):
        pool.allocate("10.0.0.1")


@given(st.lists(st.one_of(st.none(), st.integers(0, 13)), max_size=60))
def test_no_address_is_ever_held_twice(actions: list[int | None]) -> None:
    pool = Addresses(IPv4Network("10.0.0.0/28"))
    held: list[str] = []
    for action in actions:
        if action is None and len(held) < 13:
            address = str(pool.allocate())
            assert address not in held
            held.append(address)
        elif action is not None and action < len(held):
            pool.release(held.pop(action))
