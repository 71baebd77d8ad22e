"""IP addresses that belong to the host itself. Pure.

The engine connects from the host's network. A client whose containers cannot reach the host's
loopback must not reach it through the engine either.
"""

from __future__ import annotations

import ipaddress


def is_host_address(text: str) -> bool:
    """Return whether ``text`` is a loopback, link-local or unspecified address.

    Link-local addresses include the metadata service of a cloud. An IPv4 address that is written as
    an IPv6 address counts as the IPv4 address. A zone (``%eth0``) is ignored.

    :raises ValueError: when ``text`` is not an IP address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local or address.is_unspecified


def is_host_name(name: str) -> bool:
    """Return whether a name means the host whatever a name server says: RFC 6761, section 6.3."""
    plain = name.rstrip(".").lower()
    return plain == "localhost" or plain.endswith(".localhost")
