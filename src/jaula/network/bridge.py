"""A bridge on the host, and the links between it and containers.

What is made here is the kernel's links, addresses and settings; who may talk to whom is decided
in :mod:`jaula.network.firewall.bridge_rules`. Raises ``OSError`` as rtnetlink gives it; the manager says what
that means.

The host's side of a container is a veth ``jl<10 hex>`` whose other end was born in the container's
namespace: when that namespace goes, with its last process, the kernel removes both.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from jaula.errors import Conflict, InvalidRequest
from jaula.kernel.links import (
    add_address,
    add_bridge,
    add_veth,
    delete_link,
    set_link,
)
from jaula.kernel.rtnetlink import IF_OPER_UP, Rtnetlink
from jaula.network import endpoint_config, host_routes, sysctl
from jaula.network.ipam.addresses import Addresses, mac_from_address
from jaula.network.ipam.plan import IpamPlan
from jaula.network.network import PORT_PREFIX
from jaula.spec.endpoint import Endpoint

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
        elif sysctl.has_ipv6():
            sysctl.write_sysctl(f"ipv6/conf/{self.name}/disable_ipv6", "1")
        sysctl.write_sysctl(f"ipv4/conf/{self.name}/route_localnet", "1")
        self._netlink.send(set_link(self._index, up=True, group=self._plan.group))
        if sysctl.read_sysctl("ipv4/ip_forward") == "0":
            sysctl.write_sysctl("ipv4/ip_forward", "1")
            told.append("IPv4 forwarding was off on this host and has been switched on")
        return addresses, told

    def _set_up_ipv6(self) -> list[str]:
        """The bridge's own IPv6 address, and forwarding.

        A host that forwards no longer listens to router advertisements (accept_ra 1), from which
        it may have its own default route, so what listened before is told to go on (2).
        Nobody else on the bridge can have its addresses, so they are not tried out first: for that
        second or two nothing that is forwarded would find a container.
        """
        sysctl.write_sysctl(f"ipv6/conf/{self.name}/accept_dad", "0")
        sysctl.write_sysctl(f"ipv6/conf/{self.name}/disable_ipv6", "0")
        sysctl.write_sysctl(f"ipv6/conf/{self.name}/accept_ra", "0")
        self._netlink.send(
            add_address(self._index, self._plan.gateway6, self._plan.prefix6),
            ignore=(errno.EEXIST,),
        )
        if sysctl.read_sysctl("ipv6/conf/all/forwarding") != "0":
            return []
        for name in sysctl.ipv6_interfaces():
            if sysctl.read_sysctl(f"ipv6/conf/{name}/accept_ra") == "1":
                sysctl.write_sysctl(f"ipv6/conf/{name}/accept_ra", "2")
        sysctl.write_sysctl("ipv6/conf/all/forwarding", "1")
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
