"""Docker's document of a network (Engine API 1.45, ``NetworkRecord``). Pure."""

from __future__ import annotations

from typing import Any

from jaula.engine.containers.filters import moment
from jaula.engine.networks.store import PREDEFINED
from jaula.errors import InvalidRequest
from jaula.logs import timestamp
from jaula.spec.network import PAST_OPTION, NetworkRecord, Pool

Filters = dict[str, list[str]]
Document = dict[str, Any]


def document(network: NetworkRecord, *, past_firewall: bool = False) -> Document:
    """One network, without its containers; ``past_firewall`` is the engine's setting."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": timestamp.format_time(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None if network.name in PREDEFINED else {},
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
    }


def _options(network: NetworkRecord, past_firewall: bool) -> dict[str, str]:
    """What was asked, and what the engine's settings relax."""
    relaxed = past_firewall and network.past_firewall is None and network.driver == "bridge"
    return {**network.driver_options, **({PAST_OPTION: "true"} if relaxed else {})}


def _pools(network: NetworkRecord) -> list[Document] | None:
    """Of settings alone those that were asked for; none are null there."""
    found = [_pool(pool) for pool in network.pools]
    return found or (None if network.config_only else [])


def _pool(pool: Pool) -> Document:
    found: Document = {"Subnet": pool.subnet}
    if pool.ip_range:
        found["IPRange"] = pool.ip_range
    if pool.gateway:
        found["Gateway"] = pool.gateway
    if pool.auxiliary:
        found["AuxiliaryAddresses"] = dict(pool.auxiliary)
    return found


def has_label(labels: dict[str, str], wanted: str) -> bool:
    """Whether there is a label ``NAME`` or ``NAME=VALUE``."""
    name, equals, value = wanted.partition("=")
    found = labels.get(name)
    return found is not None and (not equals or found == value)


def prunes(network: NetworkRecord, filters: Filters) -> bool:
    """Whether prune may take a network: ``until``, ``label`` and ``label!``.

    :raises InvalidRequest: another filter.
    """
    for key, values in filters.items():
        match key:
            case "until":
                if any(network.created > moment(value) * 1e9 for value in values):
                    return False
            case "label":
                if not all(has_label(network.labels, value) for value in values):
                    return False
            case "label!":
                if any(has_label(network.labels, value) for value in values):
                    return False
            case _:
                raise InvalidRequest(f"invalid filter '{key}'")
    return True
