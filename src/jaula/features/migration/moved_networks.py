"""The networks of containers that move: the request that makes one at the target. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.spec.api_networks import IPAM, IPAMPool, NetworkCreate
from jaula.spec.network_record import NAME_OPTION

if TYPE_CHECKING:
    from jaula.spec.network_record import NetworkRecord


def definition(network: NetworkRecord) -> NetworkCreate:
    """Return the request that makes a network with the name, subnets and options of this one."""
    pools = tuple(
        IPAMPool(
            subnet=pool.subnet,
            ip_range=pool.ip_range,
            gateway=pool.gateway,
            auxiliary_addresses=pool.auxiliary,
        )
        for pool in network.pools
    )
    return NetworkCreate(
        name=network.name,
        driver=network.driver,
        enable_ipv4=network.ipv4,
        enable_ipv6=network.ipv6,
        ipam=IPAM(options=network.ipam_options, config=pools),
        internal=network.internal,
        attachable=network.attachable,
        options=network.driver_options,
        labels=network.labels,
    )


def difference(source: NetworkCreate, target: NetworkCreate) -> str:
    """Return what differs between two networks of one name, for the containers; '' if nothing.

    Gateways may differ: a network of two hosts has one at each. So may the name of the bridge.
    """
    for label, mine, theirs in (
        ("driver", source.driver, target.driver),
        ("subnet", _subnets(source), _subnets(target)),
        ("internal", source.internal, target.internal),
    ):
        if mine != theirs:
            return f"{label} {theirs} at the target, {mine} here"
    ours, others = _options(source), _options(target)
    for name in sorted(ours.keys() | others.keys()):
        if ours.get(name) != others.get(name):
            there, here = (each.get(name, "not set") for each in (others, ours))
            return f"option {name} {there} at the target, {here} here"
    return ""


def _subnets(network: NetworkCreate) -> str:
    pools = network.ipam.config if network.ipam is not None else ()
    return ", ".join(sorted(pool.subnet for pool in pools)) or "none"


def _options(network: NetworkCreate) -> dict[str, str]:
    return {name: value for name, value in network.options.items() if name != NAME_OPTION}
