"""From a network's document to what the kernel is told: the bridge's plan, the firewall's limits.

Pure. Source: Docker Engine API 1.45, ``POST /networks/create``; docker network create(1).


The default network, as an operator's settings have it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from jaula.config import EngineConfig
from jaula.errors import InvalidRequest, NotAuthorized
from jaula.network.drivers.bridge import BridgePlan, check_bridge_name
from jaula.network.drivers.parent_interface import ParentPlan, dummy_name
from jaula.network.firewall.antispoof import port_group
from jaula.network.firewall.bridge_rules import INTERNAL_GROUP, Limits
from jaula.network.ipam import (
    Addresses,
    AddressPool,
    IpamPlan,
    Subnet,
    choose_subnet6,
    parse_subnet,
    parse_subnet6,
    unique_local_subnet,
)
from jaula.spec.network import NetworkRecord, Pool


def check_pools(pools: Iterable[Pool], taken: Iterable[Subnet], *, ipv6: bool) -> tuple[Pool, ...]:
    """The subnets that a person asked for, in one form; ``taken`` are those of other networks.

    :raises InvalidRequest: a subnet, gateway, range or address that cannot be.
    :raises NotAuthorized: a subnet overlaps another network's (Docker's status and words).
    """
    found: list[Pool] = []
    others = list(taken)
    for pool in pools:
        if not pool.subnet:
            if pool.gateway or pool.ip_range or pool.auxiliary:
                raise InvalidRequest(
                    "invalid network config:\nevery ip-range, gateway or aux-address must have"
                    " a corresponding subnet"
                )
            continue
        version6 = ":" in pool.subnet
        if version6 and not ipv6:
            continue  # as Docker: a subnet for IPv6 alone does not switch it on
        if any((":" in other.subnet) == version6 for other in found):
            raise InvalidRequest(
                f"only one IPv{6 if version6 else 4} subnet can be given",
                hint="make a second network",
            )
        subnet = parse_subnet6(pool.subnet) if version6 else parse_subnet(pool.subnet)
        if any(subnet.version == other.version and subnet.overlaps(other) for other in others):
            raise NotAuthorized("Pool overlaps with other one on this address space")
        others.append(subnet)
        found.append(_checked(pool, subnet))
    return tuple(found)


def _checked(pool: Pool, subnet: Subnet) -> Pool:
    gateway = _inside(pool.gateway, subnet, "gateway") if pool.gateway else ""
    auxiliary = {
        name: _inside(address, subnet, "aux-address") for name, address in pool.auxiliary.items()
    }
    ip_range = ""
    if pool.ip_range:
        try:
            part = ip_network(pool.ip_range, strict=False)
        except ValueError as exc:
            raise InvalidRequest(f"invalid ip-range {pool.ip_range!r}: {exc}") from exc
        if part.version != subnet.version or not _contains(subnet, part):
            raise InvalidRequest(f"ip-range {part} is not in the subnet {subnet}")
        ip_range = str(part)
    return Pool(str(subnet), gateway or str(subnet[1]), ip_range, auxiliary)


def _contains(subnet: Subnet, part: Subnet) -> bool:
    return part[0] in subnet and part[-1] in subnet


def _inside(text: str, subnet: Subnet, what: str) -> str:
    try:
        address = ip_address(text.partition("/")[0])
    except ValueError as exc:
        raise InvalidRequest(f"invalid {what} {text!r}") from exc
    if address not in subnet:
        raise InvalidRequest(f"no matching subnet for {what} {address}")
    return str(address)


def add_ipv6_subnet(
    network: NetworkRecord, pools: Iterable[AddressPool] = (), taken: Iterable[IPv6Network] = ()
) -> NetworkRecord:
    """A network that is to have IPv6 gets a subnet if none was asked for.

    It is the first of the IPv6 pools that is not ``taken``; without such a pool, a unique local
    one. Raises ``JaulaError`` when the pools are used up.
    """
    if not network.ipv6 or network.ipv6_pool is not None:
        return network
    subnet = choose_subnet6(pools, taken) or unique_local_subnet(bytes.fromhex(network.id[:14]))
    return _replace(network, (*network.pools, Pool(str(subnet), str(subnet[1]))))


def with_subnet(network: NetworkRecord, addresses: Addresses) -> NetworkRecord:
    """The network with the IPv4 subnet that its bridge has got."""
    if network.ipv4_pool is not None:
        return network
    chosen = Pool(str(addresses.subnet), str(addresses.gateway))
    return _replace(network, (chosen, *network.pools))


def _replace(network: NetworkRecord, pools: tuple[Pool, ...]) -> NetworkRecord:
    return msgspec.structs.replace(network, pools=pools)


def bridge_plan(
    network: NetworkRecord, pools: tuple[AddressPool, ...], port_group: int = 0
) -> BridgePlan:
    """What its bridge is to be. ``pools`` are where the engine takes subnets from."""
    asked6 = network.ipv6_pool
    return BridgePlan(
        network.bridge,
        address_plan(network, pools),
        mtu=network.mtu,
        gateway6=asked6.gateway if asked6 else "",
        prefix6=parse_subnet6(asked6.subnet).prefixlen if asked6 else 0,
        group=INTERNAL_GROUP if network.internal else 0,
        port_group=port_group,
        isolated=not network.icc,
    )


def parent_plan(network: NetworkRecord) -> ParentPlan:
    """What lies on the interface of a macvlan or ipvlan network."""
    return ParentPlan(
        network.parent,
        network.driver,
        network.mode,
        network.flag or "bridge",
        mtu=network.mtu,
        made=network.made_parent,
        dummy=network.parent == dummy_name(network.id),
    )


def address_plan(network: NetworkRecord, pools: tuple[AddressPool, ...]) -> IpamPlan:
    """The IPv4 addresses that a network is to have."""
    asked = network.ipv4_pool
    if asked is None:
        return IpamPlan(pools=pools)
    return IpamPlan(
        fixed=IPv4Network(asked.subnet),
        gateway=IPv4Address(asked.gateway),
        within=IPv4Network(asked.ip_range) if asked.ip_range else None,
        reserved=tuple(IPv4Address(address) for address in asked.auxiliary.values()),
    )


def addresses6(network: NetworkRecord) -> Addresses | None:
    """The IPv6 addresses of a network; None without IPv6."""
    pool = network.ipv6_pool
    if pool is None:
        return None
    return Addresses(
        parse_subnet6(pool.subnet),
        IPv6Address(pool.gateway),
        within=parse_subnet6(pool.ip_range) if pool.ip_range else None,
        reserved=[ip_address(address) for address in pool.auxiliary.values()],
    )


def limits(network: NetworkRecord, *, past_firewall: bool = False) -> Limits:
    """What its options change in the firewall; ``past_firewall`` holds if they do not say."""
    past = past_firewall if network.past_firewall is None else network.past_firewall
    return Limits(network.internal, network.icc, network.masquerade, past)


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
