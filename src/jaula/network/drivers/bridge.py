"""The bridge driver: a Linux bridge, veth pairs to containers, and the bridge's firewall tables.

:class:`Bridge` creates links, addresses and sysctls; it raises ``OSError`` as rtnetlink reports it.
:class:`BridgeNetwork` is the driver, which translates these errors. The firewall policy is in
:mod:`jaula.network.firewall.bridge_rules`.

The host's end of a container's veth pair is named ``jl<10 hex digits>``. The other end is created
directly in the container's network namespace. The kernel deletes both when that namespace goes
with its last process.
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

from jaula.errors import Conflict, InvalidRequest, JaulaError, Unsupported
from jaula.kernel.rtnetlink import (
    IF_OPER_UP,
    Link,
    Rtnetlink,
    add_address,
    add_bridge,
    add_veth,
    delete_link,
    set_link,
)
from jaula.network import endpoint_config, host_routes
from jaula.network.firewall import bridge_rules
from jaula.network.firewall.antispoof import AntiSpoof
from jaula.network.firewall.bridge_rules import OPEN, Limits
from jaula.network.firewall.endpoint_tables import EndpointTables
from jaula.network.firewall.nft_command import FirewallError, LoadMissing, Nft
from jaula.network.ipam import Addresses, IpamPlan, Subnet, mac_from_address
from jaula.network.network_driver import PORT_PREFIX, Network, OnRepair, no_report
from jaula.network.owner import LinkOwner
from jaula.spec.endpoint_record import Endpoint, PublishedPort

CARRIER_TIMEOUT = 0.25  # seconds
SUBNET_ATTEMPTS = 32


_bridge_name = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")


def check_bridge_name(name: str) -> str:
    """Return a bridge name that both nft and the kernel accept.

    No two bridges have one name of tables (:func:`bridge_rules.table_name`): ``jaula_x`` is that of
    ``x``, and ``jaula0_egress`` is a further table of ``jaula0``.

    :raises InvalidRequest: when the name is not valid.
    """
    if not _bridge_name.fullmatch(name):
        raise InvalidRequest(f"invalid bridge name {name!r}")
    if name.startswith("jaula_") or name.endswith(("_egress", "_listen")):
        raise InvalidRequest(
            f"the bridge name {name} is reserved: another bridge has firewall tables of that name",
            hint="choose one that does not begin with jaula_ or end with _egress or _listen",
        )
    return name


class BridgePlan(msgspec.Struct, frozen=True):
    """The configuration of a bridge. ``mtu`` 0 is the MTU of the host's default route.

    ``ipv4`` is None without IPv4. ``gateway6`` and ``prefix6`` are the bridge's IPv6 address; ''
    without IPv6. ``group`` is the bridge's interface group, ``port_group`` that of its ports. With
    ``isolated`` the bridge forwards nothing between its ports.
    """

    name: str
    ipv4: IpamPlan | None = IpamPlan()
    mtu: int = 0
    gateway6: str = ""
    prefix6: int = 0
    group: int = 0
    port_group: int = 0
    isolated: bool = False

    def addresses6(self) -> Addresses | None:
        """Return the IPv6 addresses of the bridge's subnet, or None without IPv6."""
        if not self.gateway6:
            return None
        subnet = IPv6Network((self.gateway6, self.prefix6), strict=False)
        return Addresses(subnet, IPv6Address(self.gateway6))


def _no_subnets() -> Sequence[IPv4Network]:
    return ()


class Bridge:
    """One bridge, in the network namespace of the creating thread. Not thread safe.

    ``used_subnets`` returns subnets that must not be chosen, in addition to the host's routes.
    ``owner`` marks the bridge as this engine's; without it no other engine shares the namespace.
    """

    def __init__(
        self,
        plan: BridgePlan,
        used_subnets: Callable[[], Sequence[IPv4Network]] = _no_subnets,
        owner: LinkOwner | None = None,
    ) -> None:
        self.name = plan.name
        self._plan = plan
        self._used_subnets = used_subnets
        self._owner = owner
        self._netlink = Rtnetlink()
        self._index = 0
        self._mtu = host_routes.DEFAULT_MTU

    def close(self) -> None:
        """Close the socket; links stay."""
        self._netlink.close()

    def set_up(self) -> tuple[Addresses | None, list[str]]:
        """Create the bridge or reuse the existing one. Return its IPv4 addresses and warnings.

        The addresses are None without IPv4.

        :raises Conflict: when an interface of that name exists and is not a bridge, or belongs to
            another engine.
        :raises JaulaError: when no subnet is free.
        """
        warnings = []
        link = self._netlink.link(self.name)
        if link is not None and (other := self._other_owner(link)):
            raise Conflict(
                f"the bridge {self.name} belongs to another engine ({other[:12]})",
                hint="choose another name for the bridge: --bridge NAME for the default network, -o"
                " com.docker.network.bridge.name=NAME for others",
            )
        if link is not None and link.kind != "bridge":
            raise Conflict(
                f"the interface {self.name} exists and is not a bridge",
                hint="remove it, or choose another bridge name with --bridge",
            )
        addresses = None
        if link is not None:
            self._index, self._mtu = link.index, link.mtu
            if self._plan.ipv4 is not None:
                addresses = self._existing_addresses(link.index, self._plan.ipv4)
                if addresses is None:
                    self.delete(self.name)
                    link = None
        if link is None:
            self._mtu = self._plan.mtu or host_routes.uplink_mtu(self._netlink)
            if self._plan.ipv4 is None:
                self._add(mac_from_address(IPv6Address(self._plan.gateway6)))
            else:
                addresses = self._create(self._plan.ipv4)
        if self._plan.gateway6:
            warnings += self._set_up_ipv6()
        elif endpoint_config.has_ipv6():
            endpoint_config.write_sysctl(f"ipv6/conf/{self.name}/disable_ipv6", "1")
        if addresses is not None:
            endpoint_config.write_sysctl(f"ipv4/conf/{self.name}/route_localnet", "1")
        self._netlink.send(set_link(self._index, up=True, group=self._plan.group))
        self._mark()
        if addresses is not None and (other := self._overlap(addresses.subnet)):
            warnings.append(
                f"the subnet {addresses.subnet} of {self.name} is also that of {other}: this host"
                " may not reach the containers of one of them"
            )
        if addresses is not None and endpoint_config.read_sysctl("ipv4/ip_forward") == "0":
            endpoint_config.write_sysctl("ipv4/ip_forward", "1")
            warnings.append("IPv4 forwarding was off on this host and has been switched on")
        return addresses, warnings

    def _other_owner(self, link: Link) -> str:
        """Return the id of the other engine that a bridge belongs to, or ''.

        An engine that has ended without its containers' shims keeps it by its containers' ports.
        """
        if self._owner is None or link.alias == self._owner.mark:
            return ""
        if other := self._owner.other(link.alias):
            return other
        if self._has_other_mark(link) and self._ports(link, ()):
            return link.alias.split()[-1]
        return ""

    def _has_other_mark(self, link: Link) -> bool:
        owner = self._owner
        return owner is not None and bool(link.alias) and owner.may_mark(link.alias)

    def is_foreign(self) -> bool:
        """Return whether the bridge of this name belongs to another engine."""
        link = self._netlink.link(self.name)
        return link is not None and bool(self._other_owner(link))

    def _mark(self) -> None:
        link = self._netlink.link(self.name)
        if self._owner is not None and link is not None and self._owner.may_mark(link.alias):
            self._netlink.send(set_link(link.index, alias=self._owner.mark))

    def is_there(self) -> bool:
        """Return whether the bridge that was set up still exists."""
        return self._netlink.index(self.name) == self._index

    def set_up_again(self, addresses: Addresses | None) -> list[str]:
        """Create the bridge, which another program deleted, with the addresses that it had.

        Return warnings. The errors are those of :meth:`set_up`.
        """
        plan = self._plan
        if addresses is not None and plan.ipv4 is not None:
            subnet, gateway = addresses.subnet, addresses.gateway
            assert isinstance(subnet, IPv4Network)
            assert isinstance(gateway, IPv4Address)
            fixed = msgspec.structs.replace(plan.ipv4, fixed=subnet, gateway=gateway)
            self._plan = msgspec.structs.replace(plan, ipv4=fixed)
        try:
            return self.set_up()[1]
        finally:
            self._plan = plan

    def ports(self) -> list[str]:
        """Return the names of the bridge's ports."""
        return self._netlink.ports(self._index)

    def attach(self, host_interface: str) -> None:
        """Make the host's end of an endpoint a port of the bridge, if it is a port of none."""
        link = self._netlink.link(host_interface)
        if link is None or link.master:
            return
        self._netlink.send(
            set_link(host_interface, master=self._index, up=True),
            set_link(host_interface, hairpin=True, isolated=self._plan.isolated, up=True),
        )

    def _set_up_ipv6(self) -> list[str]:
        """Set the bridge's IPv6 address and enable forwarding. Return warnings.

        A forwarding host ignores router advertisements with accept_ra 1, and may get its default
        route from them. So interfaces with accept_ra 1 are set to 2, which accepts them while
        forwarding.

        No other host on the bridge can have the bridge's addresses, so duplicate address detection
        is off: for the second or two that it takes, forwarded packets would not reach a container.
        """
        endpoint_config.write_sysctl(f"ipv6/conf/{self.name}/accept_dad", "0")
        endpoint_config.write_sysctl(f"ipv6/conf/{self.name}/disable_ipv6", "0")
        endpoint_config.write_sysctl(f"ipv6/conf/{self.name}/accept_ra", "0")
        self._netlink.send(
            add_address(self._index, self._plan.gateway6, self._plan.prefix6),
            ignore=(errno.EEXIST,),
        )
        self._netlink.await_local(self._plan.gateway6)
        if endpoint_config.read_sysctl("ipv6/conf/all/forwarding") != "0":
            return []
        for name in endpoint_config.ipv6_interfaces():
            if endpoint_config.read_sysctl(f"ipv6/conf/{name}/accept_ra") == "1":
                endpoint_config.write_sysctl(f"ipv6/conf/{name}/accept_ra", "2")
        endpoint_config.write_sysctl("ipv6/conf/all/forwarding", "1")
        return ["IPv6 forwarding was off on this host and has been switched on"]

    def _existing_addresses(self, index: int, ipv4: IpamPlan) -> Addresses | None:
        """Return the addresses of an existing bridge if they match the configuration."""
        for row in self._netlink.addresses():
            if row.index == index and row.family == socket.AF_INET:
                subnet = IPv4Network((row.address, row.prefix), strict=False)
                gateway = IPv4Address(row.address)
                if ipv4.gateway not in (None, gateway):
                    continue
                if ipv4.fixed in (None, subnet):
                    return msgspec.structs.replace(ipv4, gateway=gateway).addresses(subnet)
        return None

    def _create(self, ipv4: IpamPlan) -> Addresses:
        """Create the bridge with an IPv4 subnet that nothing else on this host uses.

        Two engines may choose the same subnet at the same moment. Each checks again after it has
        added its address: the later one sees the other bridge and retries. If both retry, a pause
        of random length separates them.
        """
        collisions: list[IPv4Network] = []
        for _ in range(SUBNET_ATTEMPTS):
            used = [*host_routes.ipv4_networks(self._netlink), *self._used_subnets(), *collisions]
            subnet = ipv4.choose(used)
            addresses = ipv4.addresses(subnet)
            self._add(mac_from_address(addresses.gateway))
            self._netlink.send(add_address(self._index, str(addresses.gateway), subnet.prefixlen))
            if ipv4.fixed is not None or not self._overlaps_interface(subnet):
                return addresses
            collisions.append(subnet)
            self.delete(self.name)
            time.sleep(os.urandom(1)[0] / 5000)  # at most 51 ms
        raise OSError(errno.EADDRINUSE, f"other bridges use {', '.join(map(str, collisions))}")

    def _add(self, mac: str) -> None:
        """Create the bridge without addresses."""
        self._netlink.send(
            add_bridge(self.name, mac=mac, mtu=self._mtu, group=self._plan.group),
            *(() if self._plan.gateway6 else (set_link(self.name, no_link_local=True),)),
        )
        link = self._netlink.link(self.name)
        if link is None:
            raise OSError(errno.ENODEV, f"bridge {self.name} was removed during its setup")
        self._index = link.index

    def _overlaps_interface(self, subnet: IPv4Network) -> bool:
        return bool(self._overlap(subnet))

    def _overlap(self, subnet: Subnet) -> str:
        """Return an address of another link with which an IPv4 subnet overlaps, or ''."""
        for row in self._netlink.addresses():
            if row.index == self._index or row.family != socket.AF_INET:
                continue
            if subnet.overlaps(IPv4Network((row.address, row.prefix), strict=False)):
                return f"another interface, {row.address}/{row.prefix}"
        return ""

    def connect(
        self,
        endpoint: Endpoint,
        netns_fd: int,
        *,
        default_route: bool = True,
        carrier: bool = True,
    ) -> None:
        """Create the veth pair of an endpoint and configure the container's end.

        Without ``carrier`` the host's end stays down: the namespace has the address, but answers
        no packet.

        The port is in hairpin mode. With br_netfilter, a packet to a published port is translated
        while it is bridged, and may have to leave by the port that it came from.
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
                up=carrier,
            ),
        )
        endpoint_config.configure(endpoint, netns_fd, default_route=default_route)
        if not carrier:
            return
        self._await_carrier(endpoint.host_interface)
        self._await_carrier(self.name)

    def _await_carrier(self, name: str) -> None:
        """Wait until a link carries frames, at most ``CARRIER_TIMEOUT``.

        The kernel notes a carrier in a worker (link_watch.c), which is late on a busy host, and
        drops frames sent before. A request for the link makes the kernel check at once.
        """
        end = time.monotonic() + CARRIER_TIMEOUT
        while True:
            link = self._netlink.link(name)
            if link is None:
                raise OSError(errno.ENODEV, f"{name} does not exist")
            if link.operstate == IF_OPER_UP or time.monotonic() > end:
                return
            time.sleep(0.001)

    def delete(self, name: str) -> bool:
        """Delete a link. Return whether it existed."""
        try:
            self._netlink.send(delete_link(name))
        except OSError as exc:
            if exc.errno != errno.ENODEV:
                raise
            return False
        return True

    def has(self, name: str) -> bool:
        """Return whether the host has a link of that name."""
        return self._netlink.link(name) is not None

    def delete_bridge(self) -> None:
        """Delete the bridge. One of the administrator's, or another kind of interface, stays."""
        link = self._netlink.link(self.name)
        if link is None or link.kind != "bridge":
            return
        if self._owner is None or self._owner.may_delete(link.alias):
            self.delete(self.name)

    def orphaned_ports(self, live: Collection[str]) -> list[str]:
        """Return the container ports of this bridge whose names are not in ``live``.

        The bridge of another engine has none.
        """
        bridge = self._netlink.link(self.name)
        if bridge is None or self._has_other_mark(bridge):
            return []
        return self._ports(bridge, live)

    def _ports(self, bridge: Link, live: Collection[str]) -> list[str]:
        return [
            name
            for name in self._netlink.ports(bridge.index)
            if name.startswith(PORT_PREFIX) and name not in live
        ]


class BridgeNetwork(Network):
    """The bridge driver: a bridge with its addresses, endpoints and firewall tables."""

    publishes = True
    restricts = True

    def __init__(
        self,
        network: str,
        bridge: Bridge,
        nft: Nft,
        antispoof: AntiSpoof,
        lists: tuple[EndpointTables, ...],
        kept_tables: Callable[[], str],
        load_missing: LoadMissing,
        *,
        limits: Limits = OPEN,
        addresses6: Addresses | None = None,
        on_repair: OnRepair = no_report,
    ) -> None:
        super().__init__(network, internal=limits.internal, addresses6=addresses6)
        self.bridge = bridge
        self._nft = nft
        self._antispoof = antispoof
        self._lists = lists
        self._kept_tables = kept_tables
        self._load_missing = load_missing
        self._limits = limits
        self._on_repair = on_repair

    @property
    def name(self) -> str:
        """The bridge's name."""
        return self.bridge.name

    def ensure(self) -> None:
        """Set up the bridge and the firewall unless they are set up.

        A bridge that another program deleted is created again, with the ports of its containers.
        """
        if self.is_up:
            if not self.bridge.is_there():
                self._repair()
            return
        try:
            addresses, warnings = self.bridge.set_up()
        except OSError as exc:
            raise JaulaError(f"cannot set up the bridge {self.name}: {exc}") from exc
        self.warnings += warnings
        self._antispoof.ensure()
        if bridge_rules.tables_missing(self._kept_tables(), self.name, self.addresses6 is not None):
            self._load(addresses)
        self.addresses, self.is_up = addresses, True

    def attach_ports(self) -> list[str]:
        """Attach endpoints whose bridge was deleted and made again while no engine ran.

        The ports are listed once, since a request for each link takes 65 µs. Return one line for
        each endpoint that cannot be attached.
        """
        problems = []
        ports = set(self.bridge.ports())
        for endpoint in self.endpoints.values():
            if endpoint.host_interface in ports:
                continue
            try:
                self.bridge.attach(endpoint.host_interface)
            except OSError as exc:
                name = endpoint.container_name
                problems.append(f"{name}: cannot attach {endpoint.host_interface}: {exc}")
        return problems

    def _repair(self) -> None:
        try:
            self.warnings += self.bridge.set_up_again(self.addresses)
            for endpoint in self.endpoints.values():
                self.bridge.attach(endpoint.host_interface)
        except OSError as exc:
            raise JaulaError(
                f"the bridge {self.name} was deleted by another program, and cannot be set up"
                f" again: {exc}"
            ) from exc
        self._on_repair("bridge", self.name)

    def load_firewall(self) -> None:
        """Replace the firewall tables of this bridge."""
        self.ensure()
        self._load(self.addresses)

    def _load(self, addresses: Addresses | None) -> None:
        refused: FirewallError | None = None
        handed_over = self._limits.hands_over
        for limits in bridge_rules.within_kernel(self._limits):
            try:
                self._nft.run(self._text(addresses, limits))
            except FirewallError as exc:
                refused = exc
                continue
            self._limits = limits
            break
        else:
            assert refused is not None
            raise refused
        if refused is not None and handed_over and not self._limits.hands_over:
            self.warnings.append(
                f"published ports of {self.name} are reachable from this host only, since this"
                f" kernel cannot apply the host's input rules to them: {refused.message};"
                " --publish-past-firewall publishes them without these rules"
            )

    def _text(self, addresses: Addresses | None, limits: Limits) -> str:
        rows = list(self.endpoints.values())
        subnet = addresses.subnet if addresses is not None else None
        assert subnet is None or isinstance(subnet, IPv4Network)
        text = bridge_rules.ruleset(self.name, subnet, rows, limits)
        if self.addresses6 is not None:
            subnet6 = self.addresses6.subnet
            assert isinstance(subnet6, IPv6Network)
            text += bridge_rules.ruleset6(self.name, subnet6, limits, rows)
        return text

    def _link(
        self, endpoint: Endpoint, netns_fd: int, *, default_route: bool, carrier: bool
    ) -> Endpoint:
        try:
            self.bridge.connect(endpoint, netns_fd, default_route=default_route, carrier=carrier)
            self.restrict(endpoint)
            self._antispoof.allow(endpoint)
        except (OSError, JaulaError):
            self.bridge.delete(endpoint.host_interface)
            self._unrestrict(endpoint)
            raise
        return endpoint

    def restrict(self, endpoint: Endpoint) -> None:
        """Enforce the lists, before the anti-spoofing rules let the endpoint send."""
        for tables in self._lists:
            if tables.is_restricted(endpoint) and not self._antispoof.supported:
                raise Unsupported(
                    f"the {tables.subject} of {endpoint.container_name} cannot be enforced: this"
                    " kernel has no nftables for bridges, so containers can use each other's"
                    " addresses"
                )
            tables.add(endpoint)

    def _unrestrict(self, endpoint: Endpoint) -> None:
        for tables in self._lists:
            tables.remove(endpoint)

    def _dismiss(self, endpoint: Endpoint) -> None:
        self._antispoof.revoke(endpoint)
        self._unrestrict(endpoint)

    def delete_interface(self, endpoint: Endpoint, netns_fd: int | None) -> None:
        """Delete both ends of the veth pair."""
        self.bridge.delete(endpoint.host_interface)

    def publish(self, endpoint: Endpoint, ports: list[PublishedPort], *, verb: str) -> None:
        """Add (``verb`` 'add') or delete ('delete') published ports in the firewall."""
        table = bridge_rules.table_name(self.name)
        elements = bridge_rules.port_elements(table, endpoint, ports, verb=verb)
        if verb == "add":
            self.ensure()
            self._add(elements)
        elif self.is_up:
            self._delete(elements)

    def is_missing(self, listing: str) -> bool:
        """Return whether a table of this bridge is missing in ``nft list tables`` output."""
        ipv6 = self.addresses6 is not None
        return self.is_up and bridge_rules.tables_missing(listing, self.name, ipv6)

    def orphaned_ports(self) -> list[str]:
        """Return the container ports of the bridge that belong to no endpoint."""
        kept: Collection[str] = {endpoint.host_interface for endpoint in self.endpoints.values()}
        return self.bridge.orphaned_ports(kept)

    def delete_port(self, name: str) -> bool:
        """Delete a port of the bridge. Return whether it existed."""
        return self.bridge.delete(name)

    def take_down(self) -> None:
        """Remove the firewall tables and the bridge, unless they are another engine's."""
        if self.bridge.is_foreign():
            self.addresses, self.is_up = None, False
            return
        ipv6 = self.addresses6 is not None
        self._nft.run(bridge_rules.delete(self.name, ipv6=ipv6))
        self.bridge.delete_bridge()
        self.addresses, self.is_up = None, False

    def close(self) -> None:
        """Close the bridge's socket."""
        self.bridge.close()

    def _add(self, elements: str) -> None:
        """Add elements. If the tables are missing, load them first."""
        try:
            self._nft.run(elements)
        except FirewallError:
            if not self._load_missing():
                self.load_firewall()
            self._nft.run(elements)

    def _delete(self, elements: str) -> None:
        """Delete elements. If they or the tables are missing, load the tables."""
        try:
            self._nft.run(elements)
        except FirewallError:
            if not self._load_missing():
                self.load_firewall()
