"""Config-only networks (``--config-only``), and networks made from them (``--config-from``). Pure.

Follows libnetwork: such a network has address families, subnets, labels and driver options, and
nothing in the kernel. A network that is made from it may not set any of these itself. Messages and
status codes are Docker's. Whether options suit a driver is checked when a network is made from
them.
"""

from __future__ import annotations

import time

import msgspec

from jaula.errors import NotAuthorized, NotFound
from jaula.network import network_config
from jaula.spec.api_networks import IPAM, IPAMPool, NetworkCreate
from jaula.spec.network_record import NetworkRecord, Pool

DRIVER = "null"


def config_from(body: NetworkCreate) -> str:
    """Return the name of the network whose settings the request takes, or ''."""
    return body.config_from.network if body.config_from is not None else ""


def check(body: NetworkCreate) -> None:
    """Check the combination of ``ConfigOnly`` and ``ConfigFrom`` with other members.

    :raises NotAuthorized: when members exclude each other.
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
    if own or body.enable_ipv4 is False or body.enable_ipv6 or body.labels:
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
    """Return the record of a config-only network.

    :raises JaulaError: when a subnet, gateway, range or address is not valid.
    """
    requested = body.ipam.config if body.ipam else ()
    pools = [Pool(p.subnet, p.gateway, p.ip_range, p.auxiliary_addresses) for p in requested]
    checked = network_config.check_pools(pools, (), ipv6=True)
    stored = (
        pool if requested_pool.gateway else msgspec.structs.replace(pool, gateway="")
        for pool, requested_pool in zip(
            checked, (pool for pool in pools if pool.subnet), strict=True
        )
    )
    return NetworkRecord(
        body.name,
        identity,
        time.time_ns(),
        "",
        driver=DRIVER,
        pools=tuple(stored),
        ipv4=body.enable_ipv4 is not False,
        ipv6=bool(body.enable_ipv6),
        driver_options=body.options,
        ipam_options=body.ipam.options if body.ipam else None,
        labels=body.labels,
        config_only=True,
    )


def apply_config(body: NetworkCreate, config: NetworkRecord | None) -> NetworkCreate:
    """Return the request with the settings of ``config``, the network that it names.

    :raises NotFound: when there is none, or it is not config-only.
    """
    if config is None or not config.config_only:
        raise NotFound(f'configuration network "{config_from(body)}" does not exist')
    pools = tuple(
        IPAMPool(
            subnet=pool.subnet,
            gateway=pool.gateway,
            ip_range=pool.ip_range,
            auxiliary_addresses=pool.auxiliary,
        )
        for pool in config.pools
    )
    return msgspec.structs.replace(
        body,
        enable_ipv4=config.ipv4,
        enable_ipv6=config.ipv6,
        ipam=IPAM(config=pools, options=config.ipam_options),
        options=config.driver_options,
        labels=config.labels,
    )
