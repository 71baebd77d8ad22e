"""Network configuration: validate a request, and convert a record to kernel configuration. Pure.

Source: Docker Engine API 1.45, ``POST /networks/create``; docker network create(1).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

import msgspec

from jaula.config import EngineConfig
from jaula.errors import InvalidRequest, JaulaError, NotAuthorized, list_of
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
from jaula.sha256 import sha256
from jaula.spec.network_record import NetworkRecord, Pool

_MAX_SUBNETS = 64  # of one request


def check_pools(
    pools: Iterable[Pool],
    taken: Iterable[Subnet],
    *,
    ipv4: bool = True,
    ipv6: bool,
    driver: str = "bridge",
) -> tuple[Pool, ...]:
    """Return the requested subnets in canonical form. ``taken`` are the subnets of other networks.

    ``ipv4`` and ``ipv6`` say which address families the network has. The messages are Docker's.

    :raises InvalidRequest: when a subnet, gateway, range or address is invalid, or there are too
        many subnets to compare each with the others.
    :raises NotAuthorized: when a subnet overlaps another network's, or a family has several.
    :raises JaulaError: when a gateway or auxiliary address cannot be used.
    """
    requested = []
    for pool in pools:
        if pool.subnet:
            requested.append(pool)
        elif pool.gateway or pool.ip_range or pool.auxiliary:
            raise InvalidRequest(
                "invalid network config:\nevery ip-range, gateway or aux-address must have"
                " a corresponding subnet"
            )
    if errors := [error for pool in requested for error in _errors(pool, ipv6)]:
        raise InvalidRequest(f"invalid network config:\n{list_of(errors)}")
    if len(requested) > _MAX_SUBNETS:
        raise InvalidRequest(
            f"invalid network config:\n{len(requested)} subnets",
            hint=f"at most {_MAX_SUBNETS} are compared with each other; a network uses one of each"
            " address family",
        )
    checked: list[Pool] = []
    other_subnets = list(taken)
    for pool in requested:
        version6 = ":" in pool.subnet
        if not (ipv6 if version6 else ipv4):
            continue  # like Docker: the subnet of an address family that is off is ignored
        subnet = parse_subnet6(pool.subnet) if version6 else parse_subnet(pool.subnet)
        if any(
            subnet.version == other.version and subnet.overlaps(other) for other in other_subnets
        ):
            raise NotAuthorized("Pool overlaps with other one on this address space")
        other_subnets.append(subnet)
        checked.append(_canonical(pool, subnet))
    if len({":" in pool.subnet for pool in checked}) < len(checked):
        raise NotAuthorized(f"{driver} driver doesn't support multiple subnets")
    return tuple(checked)


def _errors(pool: Pool, ipv6: bool) -> list[str]:
    """Return every error of a pool (moby: ``ValidateIPAM``)."""
    subnet = _prefix(pool.subnet)
    if subnet is None:
        return [f"invalid subnet {pool.subnet}: invalid CIDR block notation"]
    if subnet.version == 6 and not ipv6:
        return []
    network, errors = subnet.network, []
    if subnet.ip != network.network_address:
        errors.append(f"invalid subnet {subnet}: it should be {network}")
    errors += _range_errors(pool.ip_range, network)
    if pool.gateway and (error := _address_error(pool.gateway, network)):
        errors.append(f"invalid gateway {pool.gateway}: {error}")
    for name, address in pool.auxiliary.items():
        if error := _address_error(address, network):
            errors.append(f"invalid auxiliary address {name}: {error}")
    return errors


def _range_errors(text: str, subnet: Subnet) -> list[str]:
    if not text:
        return []
    parsed = _prefix(text)
    if parsed is None:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if parsed.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    network, errors = parsed.network, []
    if network.prefixlen < subnet.prefixlen:
        errors.append(
            f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
        )
    if parsed.ip != network.network_address:
        errors.append(f"invalid ip-range {parsed}: it should be {network}")
    if not subnet.overlaps(network):
        errors.append(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return errors


def _address_error(text: str, subnet: Subnet) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return "invalid address"
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    if address not in subnet:
        return f"parent subnet {subnet} doesn't contain this address"
    return ""


def _prefix(text: str) -> IPv4Interface | IPv6Interface | None:
    """Return a prefix in CIDR notation, None if it is malformed."""
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or "%" in address:
        return None
    try:
        return ip_interface(text)
    except ValueError:
        return None


def _canonical(pool: Pool, subnet: Subnet) -> Pool:
    """Return a checked pool in canonical form.

    :raises JaulaError: when two of its addresses are the same, or one is the subnet's own.
    """
    gateway = ip_address(pool.gateway) if pool.gateway else subnet[1]
    used = {subnet.network_address, *((subnet.broadcast_address,) if subnet.version == 4 else ())}
    if gateway in used:
        raise JaulaError(f"failed to allocate gateway ({gateway}): Address already in use")
    used.add(gateway)
    ip_range = ip_network(pool.ip_range) if pool.ip_range else None
    auxiliary = {}
    for name, text in pool.auxiliary.items():
        address = ip_address(text)
        if address in used and (ip_range is None or address in ip_range):
            raise JaulaError(
                f"failed to allocate secondary ip address ({name}:{text}): Address already in use"
            )
        used.add(address)
        auxiliary[name] = str(address)
    return Pool(str(subnet), str(gateway), str(ip_range) if ip_range else "", auxiliary)


def add_ipv6_subnet(
    network: NetworkRecord, pools: Iterable[AddressPool] = (), taken: Iterable[IPv6Network] = ()
) -> NetworkRecord:
    """Return the network with an IPv6 subnet if IPv6 is enabled and no subnet was requested.

    The subnet is the first of the IPv6 pools that is not in ``taken``. Without an IPv6 pool it is a
    unique local one.

    :raises JaulaError: when every subnet of the pools is taken.
    """
    if not network.ipv6 or network.ipv6_pool is not None:
        return network
    subnet = choose_subnet6(pools, taken) or unique_local_subnet(bytes.fromhex(network.id[:14]))
    return _replace(network, (*network.pools, Pool(str(subnet), str(subnet[1]))))


def with_subnet(network: NetworkRecord, addresses: Addresses | None) -> NetworkRecord:
    """Return the network with the IPv4 subnet that was assigned to it, None without IPv4."""
    if addresses is None or network.ipv4_pool is not None:
        return network
    chosen = Pool(str(addresses.subnet), str(addresses.gateway))
    return _replace(network, (chosen, *network.pools))


def _replace(network: NetworkRecord, pools: tuple[Pool, ...]) -> NetworkRecord:
    return msgspec.structs.replace(network, pools=pools)


def bridge_plan(
    network: NetworkRecord, pools: tuple[AddressPool, ...], port_group: int = 0
) -> BridgePlan:
    """Return the configuration of a network's bridge. ``pools`` are the engine's address pools."""
    ipv6_pool = network.ipv6_pool
    return BridgePlan(
        network.bridge,
        address_plan(network, pools),
        mtu=network.mtu,
        gateway6=ipv6_pool.gateway if ipv6_pool else "",
        prefix6=parse_subnet6(ipv6_pool.subnet).prefixlen if ipv6_pool else 0,
        group=INTERNAL_GROUP if network.internal else 0,
        port_group=port_group,
        isolated=not network.icc,
    )


def parent_plan(network: NetworkRecord) -> ParentPlan:
    """Return the configuration of a macvlan or ipvlan network's parent interface."""
    return ParentPlan(
        network.parent,
        network.driver,
        network.mode,
        network.flag or "bridge",
        mtu=network.mtu,
        owned=network.made_parent,
        dummy=network.parent == dummy_name(network.id),
    )


def address_plan(network: NetworkRecord, pools: tuple[AddressPool, ...]) -> IpamPlan | None:
    """Return the IPv4 address configuration of a network, or None if it has no IPv4."""
    if not network.ipv4:
        return None
    ipv4_pool = network.ipv4_pool
    if ipv4_pool is None:
        return IpamPlan(pools=pools)
    return IpamPlan(
        fixed=IPv4Network(ipv4_pool.subnet),
        gateway=IPv4Address(ipv4_pool.gateway),
        ip_range=IPv4Network(ipv4_pool.ip_range) if ipv4_pool.ip_range else None,
        reserved=tuple(IPv4Address(address) for address in ipv4_pool.auxiliary.values()),
    )


def addresses6(network: NetworkRecord) -> Addresses | None:
    """Return the IPv6 addresses of a network, or None if it has no IPv6."""
    pool = network.ipv6_pool
    if pool is None:
        return None
    return Addresses(
        parse_subnet6(pool.subnet),
        IPv6Address(pool.gateway),
        ip_range=parse_subnet6(pool.ip_range) if pool.ip_range else None,
        reserved=[ip_address(address) for address in pool.auxiliary.values()],
    )


def limits(network: NetworkRecord, *, past_firewall: bool = False) -> Limits:
    """Return the firewall options of a network. ``past_firewall`` is the engine's default."""
    bypass = past_firewall if network.past_firewall is None else network.past_firewall
    return Limits(network.internal, network.icc, network.masquerade, bypass)


def default_bridge_plan(config: EngineConfig, pools: tuple[AddressPool, ...]) -> BridgePlan:
    """Return the configuration of the default network's bridge, from the engine's settings.

    :raises InvalidRequest: when a setting is invalid.
    """
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
    """Return the IPv6 subnet. The default depends on machine and bridge only, so it is stable."""
    if config.bridge_subnet6:
        return parse_subnet6(config.bridge_subnet6)
    return unique_local_subnet(sha256(f"{_machine_id()} {config.bridge}".encode()).digest()[:7])


def _machine_id() -> str:
    """Return machine-id(5), or the host name if the file is absent."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return os.uname().nodename
