"""Docker's document of a network (Engine API 1.45, ``Network``). Pure."""

from __future__ import annotations

from typing import Any

from jaula.engine.networks.network_store import PREDEFINED
from jaula.logs import timestamp
from jaula.spec.network_record import BYPASS_FIREWALL_OPTION, NetworkRecord, Pool

Document = dict[str, Any]


def document(network: NetworkRecord, *, past_firewall: bool = False) -> Document:
    """Return the document without containers; ``past_firewall`` is the engine's setting."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": timestamp.format_time(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": network.ipam_options,
            "Config": _pools(network),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {},
        "Options": _options(network, past_firewall),
        "Labels": dict(network.labels),
        "Owner": network.owner,
    }


def _options(network: NetworkRecord, past_firewall: bool) -> dict[str, str]:
    """Return the requested options, and the one that the engine's setting implies."""
    relaxed = past_firewall and network.past_firewall is None and network.driver == "bridge"
    return {**network.driver_options, **({BYPASS_FIREWALL_OPTION: "true"} if relaxed else {})}


def _pools(network: NetworkRecord) -> list[Document] | None:
    """Return the pools; those of a config-only network as requested, null if there are none."""
    pools = [_pool(pool) for pool in network.pools]
    return pools or (None if network.config_only or network.name in PREDEFINED else [])


def _pool(pool: Pool) -> Document:
    config: Document = {"Subnet": pool.subnet}
    if pool.ip_range:
        config["IPRange"] = pool.ip_range
    if pool.gateway:
        config["Gateway"] = pool.gateway
    if pool.auxiliary:
        config["AuxiliaryAddresses"] = dict(pool.auxiliary)
    return config
