"""Addresses that the name of an egress list does not open by itself: DNS rebinding. Pure.

The owner of a name chooses its addresses. If a name of a list could point into the networks behind
the host, its owner would choose which of their services the container reaches.

Source: the IANA registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890). The ranges
for documentation and benchmarks are not among them: no network behind a host has them.

An IPv6 address that contains an IPv4 address is judged by both, since a translator or a tunnel may
send its packets to the latter: IPv4-mapped and -compatible (RFC 4291), NAT64 (RFC 6052), 6to4
(RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_INTERNAL4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by providers (RFC 6598)
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local: credentials of cloud hosts
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments
            "192.168.0.0/16",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_INTERNAL6 = tuple(
    map(
        IPv6Network,
        (
            "::/128",
            "::1/128",
            "64:ff9b:1::/48",  # NAT64 of a site (RFC 8215)
            "100::/64",  # discarded (RFC 6666)
            "fc00::/7",  # unique local
            "fe80::/10",  # link-local
            "fec0::/10",  # site-local, deprecated
            "ff00::/8",  # multicast
        ),
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_LAST_32 = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_ISATAP = (0x00005EFE, 0x02005EFE)  # bits 64 to 95


def is_internal(text: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Return whether an address is private, local, multicast, or in one of the networks.

    An IPv4-mapped address is one always: a program connects to the IPv4 address that it contains,
    which an answer of type A states as itself.
    """
    address, networks = ip_address(text), tuple(networks)
    if isinstance(address, IPv6Address) and address in _MAPPED:
        return True
    return any(_is_internal(each, networks) for each in (address, *_contained(address)))


def _is_internal(
    address: IPv4Address | IPv6Address, networks: tuple[IPv4Network | IPv6Network, ...]
) -> bool:
    special = _INTERNAL4 if isinstance(address, IPv4Address) else _INTERNAL6
    return any(address in network for network in (*special, *networks))


def _contained(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses that an IPv6 address contains."""
    if isinstance(address, IPv4Address):
        return
    number = int(address)
    last = number & 0xFFFFFFFF
    if any(address in network for network in _LAST_32):
        yield IPv4Address(last)
    if address in _6TO4:
        yield IPv4Address(number >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(number >> 64 & 0xFFFFFFFF)  # the server
        yield IPv4Address(last ^ 0xFFFFFFFF)
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(last)
