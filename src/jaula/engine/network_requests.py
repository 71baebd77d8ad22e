"""From ``POST /networks/create`` to a network's record. Pure; words and statuses are Docker's.

Options that the bridge driver does not know are kept and shown, and change nothing.
"""

from __future__ import annotations

import re
import time
from ipaddress import AddressValueError, IPv4Address

from jaula.errors import InvalidRequest, NotAuthorized, NotFound, Unsupported
from jaula.network.manager import check_bridge_name
from jaula.spec.api import NetworkCreate
from jaula.spec.network import (
    BINDING_OPTION,
    ICC_OPTION,
    MASQUERADE_OPTION,
    MTU_OPTION,
    NAME_OPTION,
    Network,
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")  # strconv.ParseBool, in lower case


def check(body: NetworkCreate) -> None:
    """Refuse what this engine has no network for.

    :raises JaulaError: what is wrong.
    """
    if not _NAME.fullmatch(body.name):
        raise InvalidRequest(
            f"invalid network name ({body.name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            if body.name
            else "network name cannot be empty"
        )
    if body.driver in ("macvlan", "ipvlan"):
        raise Unsupported(
            f"cannot create network {body.name}: the driver {body.driver} is not there",
            hint="networks are bridges; leave --driver out",
        )
    if body.driver == "overlay" or body.scope == "swarm" or body.ingress:
        raise NotAuthorized(
            "This node is not a swarm manager: a network of that kind needs one",
        )
    if body.driver in ("host", "null"):
        raise NotAuthorized(f'only one instance of "{body.driver}" network is allowed')
    if body.driver not in ("", "default", "bridge"):
        raise NotFound(f'plugin "{body.driver}" not found')
    if body.ipam is not None and body.ipam.driver not in ("", "default"):
        raise NotFound(f'IPAM driver "{body.ipam.driver}" not found')
    if body.config_only:
        raise Unsupported(f"cannot create network {body.name}: --config-only is for swarms")


def network(body: NetworkCreate, identity: str) -> Network:
    """The record of a network that is not made yet, without its subnets.

    :raises InvalidRequest: an option's value.
    """
    options = body.options
    return Network(
        body.name,
        identity,
        time.time_ns(),
        check_bridge_name(options.get(NAME_OPTION) or f"br-{identity[:12]}"),
        ipv6=body.enable_ipv6,
        internal=body.internal,
        attachable=body.attachable,
        icc=_flag(options, ICC_OPTION),
        masquerade=_flag(options, MASQUERADE_OPTION),
        host_binding=_binding(options.get(BINDING_OPTION, "")),
        mtu=_mtu(options.get(MTU_OPTION, "")),
        driver_options=options,
        labels=body.labels,
    )


def _flag(options: dict[str, str], name: str) -> bool:
    text = options.get(name, "true").lower()
    if text not in _TRUE + _FALSE:
        raise InvalidRequest(f"invalid value for {name}: {options[name]!r} is not true or false")
    return text in _TRUE


def _binding(text: str) -> str:
    try:
        return str(IPv4Address(text)) if text else ""
    except AddressValueError as error:
        raise InvalidRequest(f"invalid value for {BINDING_OPTION}: {error}") from None


def _mtu(text: str) -> int:
    if not text:
        return 0
    if not text.isdigit() or not (text == "0" or 68 <= int(text) <= 65535):
        raise InvalidRequest(f"invalid value for {MTU_OPTION}: {text!r}")
    return int(text)
