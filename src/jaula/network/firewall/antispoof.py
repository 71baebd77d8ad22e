"""Anti-spoofing rules for bridge ports: only a container's own MAC and IP may send.

No other protocol reaches another container or the host, nor IPv4 or IPv6 in a network without it.
A container cannot send router advertisements or redirects, nor ARP or neighbour advertisements for
another container's address.

One table serves all bridges, since every bridged frame passes all base chains of the hook: with a
table for each network, thirty networks doubled the latency between containers.

The table is loaded by libnftables. The elements of an endpoint, which each start and each end
changes, are changed by messages to the kernel (:mod:`jaula.kernel.nftables`).

Not thread safe: the caller holds the manager's lock.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from jaula.kernel import nftables
from jaula.kernel.netlink import Netlink
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.bridge_rules import set_elements, table_name
from jaula.network.firewall.nft_command import FirewallError, LoadMissing, Nft
from jaula.network.ipam import link_local_address
from jaula.spec.endpoint_record import Endpoint

_IFNAMSIZ = 16  # bytes of the name of an interface, include/uapi/linux/if.h


class AntiSpoof:
    """The anti-spoofing table of all bridges. ``endpoints`` returns the current bridge endpoints.

    ``kept_tables`` is as in :class:`jaula.network.network_table.Networks`.

    On a kernel without nftables rules for bridges nothing is loaded, and ``warnings`` says so.
    """

    def __init__(
        self,
        bridge: str,
        nft: Callable[[], Nft],
        endpoints: Callable[[], Iterable[Endpoint]],
        kept_tables: Callable[[], str],
        load_missing: LoadMissing,
    ) -> None:
        self.warnings: list[str] = []
        self._bridge = bridge
        self._nft = nft
        self._endpoints = endpoints
        self._kept_tables = kept_tables
        self._load_missing = load_missing
        self._loaded = False
        self._supported = True
        self._is_proven = False  # the kernel has loaded the table once
        self._netlink: Netlink | None = None

    @property
    def supported(self) -> bool:
        """Whether this kernel can enforce the rules, as far as known."""
        return self._supported

    def ensure(self) -> None:
        """Load the table unless it is loaded, or a former engine's table is kept for now."""
        if not self._loaded:
            self._loaded = True
            if self.is_missing(self._kept_tables()):
                self.load()

    def load(self) -> None:
        """Replace the table.

        :raises FirewallError: when the kernel refuses what it has loaded before.
        """
        if not self._supported:
            return
        try:
            self._nft().run(ruleset(self._bridge, self._endpoints()))
            self._is_proven = True
        except FirewallError as exc:
            if self._is_proven:
                raise
            self._supported = False
            self.warnings.append(f"containers can use each other's addresses: {exc.message}")
        self._loaded = True

    def allow(self, endpoint: Endpoint) -> None:
        """Let an endpoint's interface send from its addresses."""
        self._change(endpoint, add=True)

    def revoke(self, endpoint: Endpoint) -> None:
        """Remove an endpoint's entry."""
        self._change(endpoint, add=False)

    def _change(self, endpoint: Endpoint, *, add: bool) -> None:
        """Change an endpoint's elements. If they or tables are missing, load the tables."""
        if not self._supported:
            return
        keys = endpoint_keys(endpoint)
        try:
            self._change_elements(keys, add=add)
        except OSError:
            if not self._load_missing():
                self.load()
            if add and self._supported:
                self._change_elements(keys, add=True)

    def _change_elements(self, keys: Sequence[tuple[str, bytes]], *, add: bool) -> None:
        if not keys:
            return
        self._netlink = self._netlink or Netlink(protocol=nftables.NETLINK_NETFILTER)
        nftables.change_elements(
            self._netlink, nftables.NFPROTO_BRIDGE, table_name(self._bridge), keys, add=add
        )

    def is_missing(self, listing: str) -> bool:
        """Return whether the table was loaded and is missing in ``nft list tables`` output."""
        line = f"table bridge {bridge_rules.table_name(self._bridge)}"
        return self._loaded and self._supported and line not in listing.splitlines()

    def remove(self) -> None:
        """Remove the table."""
        if self._supported:
            self._nft().run(delete(self._bridge))
        self._loaded = False

    def close(self) -> None:
        """Close the socket; the table stays."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None


def port_group(bridge: str) -> int:
    """Return the interface group of container ports, which rules of the family bridge match.

    Not every kernel can match the bridge by name there (CONFIG_NFT_BRIDGE_META).
    """
    return zlib.crc32(bridge.encode()) or 1


def ruleset(bridge: str, endpoints: Iterable[Endpoint]) -> str:
    """Return commands that replace the table. Pure.

    :param bridge: the name of the default bridge.
    :param endpoints: the endpoints on all bridges.
    """
    endpoints = tuple(endpoints)
    name = table_name(bridge)
    rows = [row for endpoint in endpoints for row in _elements(endpoint)]
    rows6 = [row for endpoint in endpoints for row in _elements6(endpoint)]
    return f"""
table bridge {name} {{ }}
delete table bridge {name}
table bridge {name} {{
  set endpoints {{
    type ifname . ether_addr . ipv4_addr{set_elements(rows)}
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
    """Return commands that remove the table, present or not. Pure."""
    name = table_name(bridge)
    return f"table bridge {name} {{ }}\ndelete table bridge {name}\n"


def endpoint_keys(endpoint: Endpoint) -> list[tuple[str, bytes]]:
    """Return the elements of an endpoint as the kernel has them: pairs of set and key. Pure."""
    interface = endpoint.host_interface.encode().ljust(_IFNAMSIZ, b"\0")
    sender = nftables.concatenated(interface, bytes.fromhex(endpoint.mac.replace(":", "")))
    keys = []
    if endpoint.ipv4:
        keys.append(("endpoints", sender + IPv4Address(endpoint.ipv4).packed))
    if endpoint.ipv6:
        keys.append(("endpoints6", sender + IPv6Address(endpoint.ipv6).packed))
        keys.append(("endpoints6", sender + link_local_address(endpoint.mac).packed))
    return keys


def _elements(endpoint: Endpoint) -> list[str]:
    if not endpoint.ipv4:
        return []
    return [f'"{endpoint.host_interface}" . {endpoint.mac} . {endpoint.ipv4}']


def _elements6(endpoint: Endpoint) -> list[str]:
    if not endpoint.ipv6:
        return []
    prefix = f'"{endpoint.host_interface}" . {endpoint.mac}'
    return [f"{prefix} . {endpoint.ipv6}", f"{prefix} . {link_local_address(endpoint.mac)}"]
