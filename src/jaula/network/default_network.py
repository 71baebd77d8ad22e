"""The default network, as an operator's settings have it."""

from __future__ import annotations

import hashlib
import os
from ipaddress import IPv6Network

from jaula.config import EngineConfig
from jaula.network.bridge import BridgePlan, check_bridge_name
from jaula.network.firewall.antispoof_rules import port_group
from jaula.network.ipam.addresses import parse_subnet, parse_subnet6, unique_local_subnet
from jaula.network.ipam.plan import IpamPlan
from jaula.network.ipam.pools import AddressPool


def default_bridge_plan(config: EngineConfig, pools: tuple[AddressPool, ...]) -> BridgePlan:
    """What its bridge is to be. Raises ``InvalidRequest`` for a setting that cannot be."""
    subnet6 = _subnet6(config) if config.bridge_ipv6 else None
    return BridgePlan(
        check_bridge_name(config.bridge),
        IpamPlan(
            fixed=parse_subnet(config.bridge_subnet) if config.bridge_subnet else None, pools=pools
        ),
        gateway6=str(subnet6[1]) if subnet6 else "",
        prefix6=subnet6.prefixlen if subnet6 else 0,
        port_group=port_group(config.bridge),
    )


def _subnet6(config: EngineConfig) -> IPv6Network:
    """One that nobody chose follows from machine and bridge, so that the next engine has it too."""
    if config.bridge_subnet6:
        return parse_subnet6(config.bridge_subnet6)
    return unique_local_subnet(
        hashlib.sha256(f"{_machine()} {config.bridge}".encode()).digest()[:7]
    )


def _machine() -> str:
    """machine-id(5), or the host's name."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return os.uname().nodename
