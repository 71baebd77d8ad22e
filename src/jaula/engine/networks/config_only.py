"""Networks that are settings alone (``--config-only``), and what others take of them.

Follows libnetwork: such a network has subnets, IPv6, labels and a driver's options, and nothing in
the kernel; a network that is made from it (``--config-from``) gives none of these itself. Words and
statuses are Docker's. Whether options fit a driver shows when a network is made from them. Pure.
"""

from __future__ import annotations

import time

import msgspec

from jaula.errors import NotAuthorized, NotFound
from jaula.network import config
from jaula.spec.api_networks import IPAM, IPAMPool, NetworkCreate
from jaula.spec.network import NetworkRecord, Pool

DRIVER = "null"


def config_from(body: NetworkCreate) -> str:
    """The name of the network whose settings are asked for, or ''."""
    return (body.config_from or {}).get("Network", "")


def check(body: NetworkCreate) -> None:
    """Refuse what settings cannot hold, and what cannot stand beside settings of another.

    :raises NotAuthorized: what is wrong.
    """
    if body.config_only and (body.ingress or body.internal or body.attachable or body.scope):
        raise NotAuthorized(
            "configuration network can only contain network specific fields. Network operator"
            " fields like [ ingress | internal | attachable | scope ] are not supported."
        )
    if not config_from(body):
        return
    if body.config_only:
        raise NotAuthorized(
            "a configuration network cannot depend on another configuration network"
        )
    ipam = body.ipam or IPAM()
    own = ipam.driver not in ("", "default") or ipam.options or ipam.config
    if own or body.enable_ipv6 or body.labels:
        raise NotAuthorized(
            "user specified configurations are not supported if the network depends on a"
            " configuration network"
        )
    if body.options:
        raise NotAuthorized(
            "network driver options are not supported if the network depends on a configuration"
            " network"
        )


def config_record(body: NetworkCreate, identity: str) -> NetworkRecord:
    """The record of a network that is settings alone.

    :raises JaulaError: a subnet, gateway, range or address that cannot be.
    """
    wanted = body.ipam.config if body.ipam else ()
    asked = [Pool(p.subnet, p.gateway, p.ip_range, p.auxiliary_addresses) for p in wanted]
    checked = config.check_pools(asked, (), ipv6=True)
    pools = (
        pool if given.gateway else msgspec.structs.replace(pool, gateway="")
        for pool, given in zip(checked, (pool for pool in asked if pool.subnet), strict=True)
    )
    return NetworkRecord(
        body.name,
        identity,
        time.time_ns(),
        "",
        driver=DRIVER,
        pools=tuple(pools),
        ipv6=body.enable_ipv6,
        driver_options=body.options,
        labels=body.labels,
        config_only=True,
    )


def apply_config(body: NetworkCreate, found: NetworkRecord | None) -> NetworkCreate:
    """A request with the settings that it asks for; ``found`` is the network of that name.

    :raises NotFound: there is none, or it is no network of settings.
    """
    if found is None or not found.config_only:
        raise NotFound(f'configuration network "{config_from(body)}" does not exist')
    pools = tuple(
        IPAMPool(
            subnet=pool.subnet,
            gateway=pool.gateway,
            ip_range=pool.ip_range,
            auxiliary_addresses=pool.auxiliary,
        )
        for pool in found.pools
    )
    return msgspec.structs.replace(
        body,
        enable_ipv6=found.ipv6,
        ipam=IPAM(config=pools),
        options=found.driver_options,
        labels=found.labels,
    )
