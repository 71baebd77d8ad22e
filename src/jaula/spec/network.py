"""A network that a user made: what the database keeps, and what the kernel's objects follow from.

The names of options are Docker's (``docker network create``, bridge driver).
"""

from __future__ import annotations

import msgspec

_OPTION = "com.docker.network.bridge."
NAME_OPTION = f"{_OPTION}name"
ICC_OPTION = f"{_OPTION}enable_icc"
MASQUERADE_OPTION = f"{_OPTION}enable_ip_masquerade"
BINDING_OPTION = f"{_OPTION}host_binding_ipv4"
MTU_OPTION = "com.docker.network.driver.mtu"
BYPASS_FIREWALL_OPTION = "io.jaula.publish_past_firewall"
"""The engine's own: published ports are open whatever the host's input rules say."""
PARENT_OPTION, MACVLAN_MODE_OPTION = "parent", "macvlan_mode"
IPVLAN_MODE_OPTION, IPVLAN_FLAG_OPTION = "ipvlan_mode", "ipvlan_flag"
PARENT_DRIVERS = ("macvlan", "ipvlan")
"""Drivers whose networks lie on an interface of the host."""


class Pool(msgspec.Struct, frozen=True, omit_defaults=True):
    """One subnet, as CIDR, with its gateway's address.

    ``ip_range`` is the part from which addresses are handed out, '' for all of it; ``auxiliary``
    are addresses by name that no container gets.
    """

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class NetworkRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One network. ``created`` is in nanoseconds since the epoch, ``mtu`` 0 that of the host.

    ``pools`` are none until the network has been set up, and then one for IPv4 and at most one
    for IPv6. ``asked_pools`` says that a person chose the subnet, so that fixed addresses can be
    relied upon. ``driver_options`` is what was asked, for those who look. Either ``bridge`` or
    ``parent`` is the name of the host's interface, but for a network that is settings alone
    (``config_only``). ``config_from`` is the one from whose settings this was made.
    """

    name: str
    id: str
    created: int
    bridge: str
    driver: str = "bridge"
    pools: tuple[Pool, ...] = ()
    asked_pools: bool = False
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""  # where ports are published by default; '': where the engine says
    past_firewall: bool | None = None  # of published ports; None: as the engine says
    mtu: int = 0
    parent: str = ""
    made_parent: bool = False  # it came with the network, and goes with it
    mode: str = ""  # macvlan_mode, ipvlan_mode
    flag: str = ""  # ipvlan_flag
    driver_options: dict[str, str] = {}
    labels: dict[str, str] = {}
    config_only: bool = False
    config_from: str = ""

    @property
    def ipv4_pool(self) -> Pool | None:
        """The IPv4 subnet; None before it was chosen."""
        return next((pool for pool in self.pools if ":" not in pool.subnet), None)

    @property
    def ipv6_pool(self) -> Pool | None:
        """The IPv6 subnet, if it has one."""
        return next((pool for pool in self.pools if ":" in pool.subnet), None)
