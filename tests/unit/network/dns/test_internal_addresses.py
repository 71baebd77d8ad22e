"""Addresses that no name of an egress list opens."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.network.dns.internal_addresses import is_internal

PRIVATE = ("10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.255.255",
           "100.64.0.0", "100.127.255.255", "127.0.0.1", "169.254.0.1", "224.0.0.1", "0.0.0.0",
           "0.1.2.3", "255.255.255.255", "240.0.0.0", "192.0.0.8")  # fmt: skip
PUBLIC = ("9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255",
          "192.169.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
          "169.253.255.255", "169.255.0.0", "223.255.255.255", "1.0.0.0", "192.0.1.0", "192.0.2.1",
          "198.51.100.1", "203.0.113.1")  # fmt: skip


def forms(address: str) -> list[str]:
    """Return the IPv6 addresses that lead to an IPv4 address."""
    number = int(IPv4Address(address))
    values = (
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80 | 1,
        0x20010000 << 96 | 0xC6336407 << 64 | (number ^ 0xFFFFFFFF),
        0x20010000 << 96 | number << 64 | 0x39CC9BF8,
        0x20010DB8 << 96 | 0x5EFE << 32 | number,
        0x20010DB8 << 96 | 0x2005EFE << 32 | number,
        0xFFFF << 48 | number,
    )
    return [str(IPv6Address(value)) for value in values]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_internal_in_each_form(address: str) -> None:
    for text in (address, f"::ffff:{address}", f"::{address}", *forms(address)):
        assert is_internal(text, ()), text


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_not(address: str) -> None:
    for text in (address, *forms(address)):
        assert not is_internal(text, ()), text
    assert is_internal(f"::ffff:{address}", ())


@pytest.mark.parametrize(
    ("address", "internal"),
    [
        *((each, True) for each in ("::", "::1", "fe80::1", "febf::1", "fec0::1", "fc00::")),
        *((each, True) for each in ("fdff::1", "ff02::1", "ff0e::1", "64:ff9b:1::9", "100::1")),
        *((each, False) for each in ("2001:db8::1", "2600::1", "fbff::1", "64:ff9b:2::1")),
        *((each, False) for each in ("100:0:0:1::", "2003::1")),
    ],
)  # fmt: skip
def test_ipv6(address: str, internal: bool) -> None:
    assert is_internal(address, ()) is internal


@pytest.mark.parametrize("network", ["198.51.100.0/24", "2001:db8:1::/48"])
def test_networks_of_the_engine_are_internal(network: str) -> None:
    inside = ip_network(network)[7]
    assert not is_internal(str(inside), ())
    assert is_internal(str(inside), (ip_network(network),))
    if isinstance(inside, IPv4Address):
        assert all(is_internal(each, (ip_network(network),)) for each in forms(str(inside)))


@given(st.ip_addresses())
def test_every_address_has_an_answer(address: IPv4Address | IPv6Address) -> None:
    assert is_internal(str(address), ()) in (True, False)
    if address.is_loopback or address.is_multicast or address.is_link_local:
        assert is_internal(str(address), ())
