"""The guard of all ports of an engine's bridges: who is let speak, in the kernel.

Not thread safe: the manager's lock is held by whoever calls.


The table that holds each port of an engine's bridges to its own addresses, as text for nft(8).

Pure. There is one for all bridges, since every frame that is bridged passes all base chains of the
hook: with a table for each network, thirty networks doubled the time from container to container.

A container speaks with its own MAC and addresses only, and no other protocol (nor IPv6, where the
network has none) reaches another container or the host: no router advertisements or redirects, no
ARP and no neighbour advertisements in another's name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from jaula.network.firewall import bridge_rules
from jaula.network.firewall.bridge_rules import set_elements, table_name
from jaula.network.firewall.nftables import FirewallError, Nft
from jaula.network.ipam import link_local_address
from jaula.spec.endpoint import Endpoint


class AntiSpoof:
    """One table for every bridge. ``endpoints`` gives those that are on them now.

    ``kept`` is as in :class:`jaula.network.networks.Networks`.

    On a kernel that has no rules for bridges it does nothing, and ``told`` says what that means.
    """

    def __init__(
        self,
        bridge: str,
        nft: Callable[[], Nft],
        endpoints: Callable[[], Iterable[Endpoint]],
        kept: Callable[[], str],
    ) -> None:
        self.told: list[str] = []
        self._bridge = bridge
        self._nft = nft
        self._endpoints = endpoints
        self._kept = kept
        self._loaded = False
        self._works = True

    def ensure(self) -> None:
        """Load the table if that was not done, and it is not one that is kept for now."""
        if not self._loaded:
            self._loaded = True
            if self.is_missing(self._kept()):
                self.load()

    def load(self) -> None:
        """Put the table in place, whole, whatever is there now."""
        if not self._works:
            return
        try:
            self._nft().run(ruleset(self._bridge, self._endpoints()))
        except FirewallError as exc:
            self._works = False
            self.told.append(f"containers can use each other's addresses: {exc.message}")
        self._loaded = True

    def admit(self, endpoint: Endpoint) -> bool:
        """Let an endpoint's interface speak with its addresses.

        Answers whether the table had to be loaded again: others may be gone as well.
        """
        return self._change(endpoint, "add")

    def dismiss(self, endpoint: Endpoint) -> bool:
        """Let it speak no longer; the answer is that of :meth:`admit`."""
        return self._change(endpoint, "delete")

    def _change(self, endpoint: Endpoint, verb: str) -> bool:
        """If the table or an element is not there, load what should be, and try again to add."""
        if not self._works:
            return False
        elements = endpoint_elements(self._bridge, endpoint, verb=verb)
        try:
            self._nft().run(elements)
        except FirewallError:
            self.load()
            if verb == "add" and self._works:
                self._nft().run(elements)
            return True
        return False

    def is_missing(self, listing: str) -> bool:
        """Whether the table should be there and is not in the output of ``nft list tables``."""
        line = f"table bridge {bridge_rules.table_name(self._bridge)}"
        return self._loaded and self._works and line not in listing.splitlines()

    def remove(self) -> None:
        """Remove the table."""
        if self._works:
            self._nft().run(delete(self._bridge))
        self._loaded = False


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
