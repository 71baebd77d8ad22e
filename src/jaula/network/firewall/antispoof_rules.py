"""The table that holds each port of an engine's bridges to its own addresses, as text for nft(8).

Pure. There is one for all bridges, since every frame that is bridged passes all base chains of the
hook: with a table for each network, thirty networks doubled the time from container to container.

A container speaks with its own MAC and addresses only, and no other protocol (nor IPv6, where the
network has none) reaches another container or the host: no router advertisements or redirects, no
ARP and no neighbour advertisements in another's name.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from jaula.network.firewall.bridge_rules import table_name
from jaula.network.ipam.addresses import link_local_address
from jaula.network.ports.rules import set_elements
from jaula.spec.endpoint import Endpoint


def port_group(bridge: str) -> int:
    """The interface group of containers' links: how a rule of family bridge knows them.

    Not every kernel can ask for the bridge by name there (CONFIG_NFT_BRIDGE_META).
    """
    return zlib.crc32(bridge.encode()) or 1


def ruleset(bridge: str, endpoints: Iterable[Endpoint]) -> str:
    """Replace the table. ``bridge`` is the default one, ``endpoints`` are those of all."""
    endpoints = tuple(endpoints)
    name = table_name(bridge)
    rows6 = [row for endpoint in endpoints for row in _port6(endpoint)]
    return f"""
table bridge {name} {{ }}
delete table bridge {name}
table bridge {name} {{
  set endpoints {{
    type ifname . ether_addr . ipv4_addr{set_elements([_port(e) for e in endpoints])}
  }}
  set endpoints6 {{
    type ifname . ether_addr . ipv6_addr{set_elements(rows6)}
  }}
  chain prerouting {{
    type filter hook prerouting priority dstnat; policy accept;
    iifgroup != {port_group(bridge)} accept
    ether type ip iifname . ether saddr . ip saddr @endpoints accept
    ether type arp iifname . arp saddr ether . arp saddr ip @endpoints accept
    icmpv6 type {{ nd-router-advert, nd-redirect }} drop
    icmpv6 type nd-neighbor-advert iifname . ether saddr . icmpv6 taddr != @endpoints6 drop
    ether type ip6 iifname . ether saddr . ip6 saddr @endpoints6 accept
    drop
  }}
}}
"""


def delete(bridge: str) -> str:
    """Remove the table, whether or not it is there."""
    name = table_name(bridge)
    return f"table bridge {name} {{ }}\ndelete table bridge {name}\n"


def endpoint_elements(bridge: str, endpoint: Endpoint, *, verb: str) -> str:
    """Let an endpoint's interface speak with its addresses, or no longer ('delete')."""
    table = f"{verb} element bridge {table_name(bridge)}"
    lines = f"{table} endpoints {{ {_port(endpoint)} }}\n"
    if endpoint.ipv6:
        lines += f"{table} endpoints6 {{ {', '.join(_port6(endpoint))} }}\n"
    return lines


def _port(endpoint: Endpoint) -> str:
    return f'"{endpoint.host_interface}" . {endpoint.mac} . {endpoint.ipv4}'


def _port6(endpoint: Endpoint) -> list[str]:
    if not endpoint.ipv6:
        return []
    own = f'"{endpoint.host_interface}" . {endpoint.mac}'
    return [f"{own} . {endpoint.ipv6}", f"{own} . {link_local_address(endpoint.mac)}"]
