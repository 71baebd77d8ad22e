"""A user-defined network, as the database stores it; the kernel objects follow from this record.

Option names are Docker's (``docker network create``, bridge driver).
"""

from __future__ import annotations

import msgspec

_OPTION = "com.docker.network.bridge."
NAME_OPTION = f"{_OPTION}name"
ICC_OPTION = f"{_OPTION}enable_icc"
MASQUERADE_OPTION = f"{_OPTION}enable_ip_masquerade"
BINDING_OPTION = f"{_OPTION}host_binding_ipv4"
IPV4_OPTION, IPV6_OPTION = "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"
"""For a request that says nothing about the address family."""
MTU_OPTION = "com.docker.network.driver.mtu"
BYPASS_FIREWALL_OPTION = "io.jaula.publish_past_firewall"
"""jaula's own option: published ports are reachable regardless of the host's input rules."""
PARENT_OPTION, MACVLAN_MODE_OPTION = "parent", "macvlan_mode"
IPVLAN_MODE_OPTION, IPVLAN_FLAG_OPTION = "ipvlan_mode", "ipvlan_flag"
PARENT_DRIVERS = ("macvlan", "ipvlan")
"""Drivers whose networks use an interface of the host as parent."""


class Pool(msgspec.Struct, frozen=True, omit_defaults=True):
    """One subnet in CIDR notation, with its gateway address.

    ``ip_range`` is the sub-range for container addresses, '' for the whole subnet. ``auxiliary``
    are addresses by name that no container gets.
    """

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class NetworkRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One network.

    ``created`` is in nanoseconds since the epoch; ``mtu`` 0 means the host's. ``pools`` is empty
    until the network has been set up, and then holds one pool of each address family that is on.
    ``asked_pools`` records that the user chose the subnet, which fixed container addresses require.
    ``driver_options`` are the options of the request, for inspect. Either ``bridge`` or ``parent``
    names the host's interface; a configuration-only network (``config_only``) has neither.
    ``config_from`` names the network whose configuration this one was created from.
    """

    name: str
    id: str
    created: int
    bridge: str
    driver: str = "bridge"
    pools: tuple[Pool, ...] = ()
    asked_pools: bool = False
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""  # default host address of published ports; '': the engine's default
    past_firewall: bool | None = None  # published ports bypass it; None: the engine's default
    mtu: int = 0
    parent: str = ""
    made_parent: bool = False  # the parent is created and deleted with the network
    mode: str = ""  # macvlan_mode, ipvlan_mode
    flag: str = ""  # ipvlan_flag
    driver_options: dict[str, str] = {}
    ipam_options: dict[str, str] | None = None  # for inspect; the only IPAM driver has none
    labels: dict[str, str] = {}
    config_only: bool = False
    config_from: str = ""
    owner: str = ""  # the client that created it, as in a container's record

    @property
    def ipv4_pool(self) -> Pool | None:
        """The IPv4 pool; None before the network is set up, and without IPv4."""
        return next((pool for pool in self.pools if ":" not in pool.subnet), None)

    @property
    def ipv6_pool(self) -> Pool | None:
        """The IPv6 pool, if there is one."""
        return next((pool for pool in self.pools if ":" in pool.subnet), None)
