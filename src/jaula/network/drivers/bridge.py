"""A bridge on the host, and the links between it and containers.

What is made here is the kernel's links, addresses and settings; who may talk to whom is decided
in :mod:`jaula.network.firewall.bridge_rules`. Raises ``OSError`` as rtnetlink gives it; the manager says what
that means.

The host's side of a container is a veth ``jl<10 hex>`` whose other end was born in the container's
namespace: when that namespace goes, with its last process, the kernel removes both.


A network on a bridge of the host, with its tables of the firewall."""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from jaula.errors import Conflict, InvalidRequest, JaulaError
from jaula.kernel.links import (
    add_address,
    add_bridge,
    add_veth,
    delete_link,
    set_link,
)
from jaula.kernel.rtnetlink import IF_OPER_UP, Rtnetlink
from jaula.network import endpoint_config, host_routes
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.antispoof import AntiSpoof
from jaula.network.firewall.bridge_rules import OPEN, Limits
from jaula.network.firewall.nftables import FirewallError, Nft
from jaula.network.ipam import Addresses, IpamPlan, mac_from_address
from jaula.network.network import PORT_PREFIX, Network
from jaula.spec.endpoint import Endpoint, PublishedPort

CARRIER_SECONDS = 0.25
ATTEMPTS = 32


_bridge_name = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")


def check_bridge_name(name: str) -> str:
    """The name of a bridge that nft and the kernel take; InvalidRequest for another."""
    if not _bridge_name.fullmatch(name):
        raise InvalidRequest(f"invalid bridge name {name!r}")
    return name


class BridgePlan(msgspec.Struct, frozen=True):
    """What a bridge is to be. ``mtu`` 0 is that of the host's default route.

    ``gateway6`` with its prefix is the bridge's IPv6 address; '' without IPv6. ``group`` is the
    bridge's interface group, ``port_group`` that of the hosts' ends of its containers' links,
    which do not reach each other with ``isolated``.
    """

    name: str
    ipv4: IpamPlan = IpamPlan()
    mtu: int = 0
    gateway6: str = ""
    prefix6: int = 0
    group: int = 0
    port_group: int = 0
    isolated: bool = False

    def addresses6(self) -> Addresses | None:
        """Every address of the IPv6 subnet; None without IPv6."""
        if not self.gateway6:
            return None
        subnet = IPv6Network((self.gateway6, self.prefix6), strict=False)
        return Addresses(subnet, IPv6Address(self.gateway6))


def _nothing() -> Sequence[IPv4Network]:
    return ()


class Bridge:
    """One bridge of the namespace of the thread that made this object. Not thread safe.

    ``avoid`` gives subnets that are promised to others, beyond those that the host routes.
    """

    def __init__(
        self, plan: BridgePlan, avoid: Callable[[], Sequence[IPv4Network]] = _nothing
    ) -> None:
        self.name = plan.name
        self._plan = plan
        self._avoid = avoid
        self._netlink = Rtnetlink()
        self._index = 0
        self._mtu = host_routes.DEFAULT_MTU

    def close(self) -> None:
        """Give up the socket; links stay."""
        self._netlink.close()

    def set_up(self) -> tuple[Addresses, list[str]]:
        """Make the bridge or take over the one that is there; its addresses, and what to tell.

        Raises ``Conflict`` if an interface of that name is no bridge, and ``JaulaError`` if no
        subnet is free.
        """
        told = []
        link = self._netlink.link(self.name)
        if link is not None and link.kind != "bridge":
            raise Conflict(
                f"there is an interface {self.name} that is not a bridge",
                hint="remove it, or name another with --bridge",
            )
        addresses = None
        if link is not None:
            addresses = self._adopt(link.index)
            self._index, self._mtu = link.index, link.mtu
            if addresses is None:
                self.delete(self.name)
        if addresses is None:
            addresses = self._create()
        if self._plan.gateway6:
            told += self._set_up_ipv6()
        elif endpoint_config.has_ipv6():
            endpoint_config.write_sysctl(f"ipv6/conf/{self.name}/disable_ipv6", "1")
        endpoint_config.write_sysctl(f"ipv4/conf/{self.name}/route_localnet", "1")
        self._netlink.send(set_link(self._index, up=True, group=self._plan.group))
        if endpoint_config.read_sysctl("ipv4/ip_forward") == "0":
            endpoint_config.write_sysctl("ipv4/ip_forward", "1")
            told.append("IPv4 forwarding was off on this host and has been switched on")
        return addresses, told

    def _set_up_ipv6(self) -> list[str]:
        """The bridge's own IPv6 address, and forwarding.

        A host that forwards no longer listens to router advertisements (accept_ra 1), from which
        it may have its own default route, so what listened before is told to go on (2).
        Nobody else on the bridge can have its addresses, so they are not tried out first: for that
        second or two nothing that is forwarded would find a container.
        """
        endpoint_config.write_sysctl(f"ipv6/conf/{self.name}/accept_dad", "0")
        endpoint_config.write_sysctl(f"ipv6/conf/{self.name}/disable_ipv6", "0")
        endpoint_config.write_sysctl(f"ipv6/conf/{self.name}/accept_ra", "0")
        self._netlink.send(
            add_address(self._index, self._plan.gateway6, self._plan.prefix6),
            ignore=(errno.EEXIST,),
        )
        if endpoint_config.read_sysctl("ipv6/conf/all/forwarding") != "0":
            return []
        for name in endpoint_config.ipv6_interfaces():
            if endpoint_config.read_sysctl(f"ipv6/conf/{name}/accept_ra") == "1":
                endpoint_config.write_sysctl(f"ipv6/conf/{name}/accept_ra", "2")
        endpoint_config.write_sysctl("ipv6/conf/all/forwarding", "1")
        return ["IPv6 forwarding was off on this host and has been switched on"]

    def _adopt(self, index: int) -> Addresses | None:
        """The addresses of a bridge that is already there, as a former engine left it."""
        for row in self._netlink.addresses():
            if row.index == index and row.family == socket.AF_INET:
                subnet = IPv4Network((row.address, row.prefix), strict=False)
                gateway = IPv4Address(row.address)
                if self._plan.ipv4.gateway not in (None, gateway):
                    continue
                if self._plan.ipv4.fixed in (None, subnet):
                    plan = msgspec.structs.replace(self._plan.ipv4, gateway=gateway)
                    return plan.addresses(subnet)
        return None

    def _create(self) -> Addresses:
        """Make the link and give it a subnet that nothing else on this host has.

        Two engines may choose the same one at the same moment. Each looks again after it has
        taken it: the later one sees the other, and gives way. Where both do, a pause of random
        length separates them.
        """
        self._mtu = self._plan.mtu or host_routes.uplink_mtu(self._netlink)
        refused: list[IPv4Network] = []
        for _ in range(ATTEMPTS):
            taken = [*host_routes.ipv4_networks(self._netlink), *self._avoid(), *refused]
            subnet = self._plan.ipv4.choose(taken)
            addresses = self._plan.ipv4.addresses(subnet)
            self._netlink.send(
                add_bridge(
                    self.name,
                    mac=mac_from_address(addresses.gateway),
                    mtu=self._mtu,
                    group=self._plan.group,
                ),
                *(() if self._plan.gateway6 else (set_link(self.name, no_link_local=True),)),
            )
            link = self._netlink.link(self.name)
            if link is None:
                raise OSError(errno.ENODEV, f"bridge {self.name} vanished while it was set up")
            self._index = link.index
            self._netlink.send(add_address(link.index, str(addresses.gateway), subnet.prefixlen))
            if self._plan.ipv4.fixed is not None or not self._has_twin(subnet):
                return addresses
            refused.append(subnet)
            self.delete(self.name)
            time.sleep(os.urandom(1)[0] / 5000)  # at most 51 ms
        raise OSError(errno.EADDRINUSE, f"other bridges took {', '.join(map(str, refused))}")

    def _has_twin(self, subnet: IPv4Network) -> bool:
        return any(
            row.index != self._index
            and row.family == socket.AF_INET
            and subnet.overlaps(IPv4Network((row.address, row.prefix), strict=False))
            for row in self._netlink.addresses()
        )

    def connect(self, endpoint: Endpoint, netns_fd: int, *, default_route: bool = True) -> None:
        """Link a container's namespace to the bridge and configure its side.

        The port is a hairpin: with br_netfilter a packet to a published port is translated while
        it is bridged, and may have to leave where it came from.
        """
        self._netlink.send(
            add_veth(
                endpoint.host_interface,
                mtu=self._mtu,
                peer_name=endpoint.interface,
                master=self._index,
                group=self._plan.port_group,
                peer_netns=netns_fd,
                peer_mac=endpoint.mac,
            ),
            set_link(
                endpoint.host_interface,
                no_link_local=True,
                hairpin=True,
                isolated=self._plan.isolated,
                up=True,
            ),
        )
        endpoint_config.configure(endpoint, netns_fd, default_route=default_route)
        self._await_carrier(endpoint.host_interface)
        self._await_carrier(self.name)

    def _await_carrier(self, name: str) -> None:
        """Wait, not for long, until a link carries frames.

        The kernel notes a carrier in a worker of its own (link_watch.c), late on a busy host, and
        drops what is sent before. To ask for the link is to make it look at once.
        """
        end = time.monotonic() + CARRIER_SECONDS
        while True:
            link = self._netlink.link(name)
            if link is None:
                raise OSError(errno.ENODEV, f"{name} is gone")
            if link.operstate == IF_OPER_UP or time.monotonic() > end:
                return
            time.sleep(0.001)

    def delete(self, name: str) -> bool:
        """Remove a link if it is there; whether it was."""
        try:
            self._netlink.send(delete_link(name))
        except OSError as exc:
            if exc.errno != errno.ENODEV:
                raise
            return False
        return True

    def has(self, name: str) -> bool:
        """Whether the host has a link of that name."""
        return self._netlink.link(name) is not None

    def delete_bridge(self) -> None:
        """Remove the bridge; an interface of that name that is no bridge stays."""
        link = self._netlink.link(self.name)
        if link is not None and link.kind == "bridge":
            self.delete(self.name)

    def strays(self, kept: Collection[str]) -> list[str]:
        """Names of this bridge's ports that look like a container's and are not in ``kept``."""
        bridge = self._netlink.link(self.name)
        if bridge is None:
            return []
        return [
            link.name
            for link in self._netlink.links()
            if link.master == bridge.index
            and link.name.startswith(PORT_PREFIX)
            and link.name not in kept
        ]


class BridgeNetwork(Network):
    """One bridge with its addresses, its endpoints and its tables."""

    publishes = True

    def __init__(
        self,
        network: str,
        bridge: Bridge,
        nft: Nft,
        guard: AntiSpoof,
        kept: Callable[[], str],
        *,
        limits: Limits = OPEN,
        addresses6: Addresses | None = None,
    ) -> None:
        super().__init__(network, internal=limits.internal, addresses6=addresses6)
        self.bridge = bridge
        self._nft = nft
        self._guard = guard
        self._kept = kept
        self._limits = limits

    @property
    def name(self) -> str:
        """The bridge's."""
        return self.bridge.name

    def ensure(self) -> Addresses:
        """Make bridge and firewall if they are not there; cheap when they are."""
        if self.addresses is None:
            try:
                addresses, told = self.bridge.set_up()
            except OSError as exc:
                raise JaulaError(f"cannot set up the bridge {self.name}: {exc}") from exc
            self.told += told
            self._guard.ensure()
            if bridge_rules.tables_missing(self._kept(), self.name, self.addresses6 is not None):
                self._load(addresses)
            self.addresses = addresses
        return self.addresses

    def load_firewall(self) -> None:
        """Put the tables in place, whole, whatever is there now."""
        self._load(self.ensure())

    def _load(self, addresses: Addresses) -> None:
        try:
            self._nft.run(self._text(addresses))
        except FirewallError as exc:
            if self._limits.past_firewall or not self._limits.hands_over:
                raise
            self._limits = msgspec.structs.replace(self._limits, hands_over=False)
            self._nft.run(self._text(addresses))
            self.told.append(
                f"published ports of {self.name} are reached from this host only, since this kernel"
                f" cannot show packets to the host's input rules first: {exc.message};"
                " --publish-past-firewall publishes without them"
            )

    def _text(self, addresses: Addresses) -> str:
        rows = list(self.endpoints.values())
        subnet = addresses.subnet
        assert isinstance(subnet, IPv4Network)
        text = bridge_rules.ruleset(self.name, subnet, rows, self._limits)
        if self.addresses6 is not None:
            subnet6 = self.addresses6.subnet
            assert isinstance(subnet6, IPv6Network)
            text += bridge_rules.ruleset6(self.name, subnet6, self._limits, rows)
        return text

    def _link(self, endpoint: Endpoint, netns_fd: int, *, default_route: bool) -> Endpoint:
        try:
            self.bridge.connect(endpoint, netns_fd, default_route=default_route)
            if self._guard.admit(endpoint):
                self.load_firewall()
        except (OSError, JaulaError):
            self.bridge.delete(endpoint.host_interface)
            raise
        return endpoint

    def _dismiss(self, endpoint: Endpoint) -> None:
        if self._guard.dismiss(endpoint):
            self.load_firewall()

    def delete_interface(self, endpoint: Endpoint, netns_fd: int | None) -> None:
        """Remove both ends of the link."""
        self.bridge.delete(endpoint.host_interface)

    def publish(self, endpoint: Endpoint, ports: list[PublishedPort], *, verb: str) -> None:
        """Tell the firewall of published ports (``verb`` 'add') or take them away ('delete')."""
        table = bridge_rules.table_name(self.name)
        elements = bridge_rules.port_elements(table, endpoint, ports, verb=verb)
        if verb == "add":
            self.ensure()
            self._add(elements)
        elif self.addresses is not None:
            self._delete(elements)

    def is_missing(self, listing: str) -> bool:
        """Whether tables that should be there are not in the output of ``nft list tables``."""
        ipv6 = self.addresses6 is not None
        return self.addresses is not None and bridge_rules.tables_missing(listing, self.name, ipv6)

    def sweep(self) -> list[str]:
        """Remove ports of the bridge that belong to no endpoint; their names."""
        kept: Collection[str] = {endpoint.host_interface for endpoint in self.endpoints.values()}
        return [name for name in self.bridge.strays(kept) if self.bridge.delete(name)]

    def take_down(self) -> None:
        """Remove firewall and bridge."""
        ipv6 = self.addresses6 is not None
        self._nft.run(bridge_rules.delete(self.name, ipv6=ipv6))
        self.bridge.delete_bridge()
        self.addresses = None

    def close(self) -> None:
        """Give up the bridge's socket."""
        self.bridge.close()

    def _add(self, elements: str) -> None:
        """Add elements; if the tables are gone, load them again first."""
        try:
            self._nft.run(elements)
        except FirewallError:
            self.load_firewall()
            self._nft.run(elements)

    def _delete(self, elements: str) -> None:
        """Take elements away; if they or the tables are not there, load what should be."""
        try:
            self._nft.run(elements)
        except FirewallError:
            self.load_firewall()
