"""``POST /networks/create``: check a request and return the network's record. Pure.

Messages and status codes are Docker's. Options that a driver does not know are stored and shown,
and have no effect.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address

import msgspec

from jaula.engine.networks import config_only
from jaula.errors import InvalidRequest, NotAuthorized, NotFound
from jaula.kernel.rtnetlink import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES
from jaula.network.drivers.bridge import check_bridge_name
from jaula.network.drivers.parent_interface import dummy_name
from jaula.spec.api_networks import NetworkCreate
from jaula.spec.network import (
    BINDING_OPTION,
    BYPASS_FIREWALL_OPTION,
    ICC_OPTION,
    IPV4_OPTION,
    IPV6_OPTION,
    IPVLAN_FLAG_OPTION,
    IPVLAN_MODE_OPTION,
    MACVLAN_MODE_OPTION,
    MASQUERADE_OPTION,
    MTU_OPTION,
    NAME_OPTION,
    PARENT_DRIVERS,
    PARENT_OPTION,
    NetworkRecord,
)

_NAME_LIMIT = 255  # characters
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")  # strconv.ParseBool, in lower case


def _check_name(name: str) -> None:
    """Check the name of a network. As in Docker, nearly every text is one.

    :raises InvalidRequest: when it is empty, not printable, or a network mode of containers.
    """
    if not name.strip():
        raise InvalidRequest(f"invalid name: {name}")
    if not name.isprintable() or len(name) > _NAME_LIMIT or name.startswith("container:"):
        raise InvalidRequest(
            f"invalid network name {name[:80]!r}",
            hint=f"at most {_NAME_LIMIT} printable characters, not a network mode of containers",
        )


def check(body: NetworkCreate) -> None:
    """Check that this engine can create the network.

    :raises JaulaError: when it cannot.
    """
    _check_name(body.name)
    if body.driver == "overlay":
        raise _swarm()
    config_only.check(body)
    if body.scope == "swarm" or body.ingress:
        raise _swarm()
    if body.ipam is not None and body.ipam.driver not in ("", "default"):
        raise NotFound(f'IPAM driver "{body.ipam.driver}" not found')
    if body.config_only:
        return  # the networks that take its settings name the driver
    if body.driver in ("host", "null"):
        raise NotAuthorized(f'only one instance of "{body.driver}" network is allowed')
    if body.driver not in ("", "default", "bridge", *PARENT_DRIVERS):
        raise NotFound(f'plugin "{body.driver}" not found')


def with_families(body: NetworkCreate) -> NetworkCreate:
    """Return the request with a decision for each address family: IPv4 is on by default.

    :raises InvalidRequest: when an option is not a truth value, or a bridge would have no address.
    """
    options = dict(body.options)
    decided = []
    for name, value, default in (
        (IPV4_OPTION, body.enable_ipv4, True),
        (IPV6_OPTION, body.enable_ipv6, False),
    ):
        if value is None:
            text = options.get(name, str(default)).lower()
            if text not in _TRUE + _FALSE:
                raise InvalidRequest(f'driver-opt "{name}" is not a valid bool')
            value = text in _TRUE
        else:
            options.pop(name, None)  # the default option of the engine, which has no effect
        decided.append(value)
    if body.driver not in PARENT_DRIVERS and not any(decided):
        raise InvalidRequest("IPv4 or IPv6 must be enabled")
    return msgspec.structs.replace(
        body, enable_ipv4=decided[0], enable_ipv6=decided[1], options=options
    )


def _swarm() -> NotAuthorized:
    return NotAuthorized("This node is not a swarm manager: a network of that kind needs one")


def network(body: NetworkCreate, identity: str) -> NetworkRecord:
    """Return the record of a network to be created, without its subnets.

    :func:`with_families` has decided the address families of ``body``.
    The caller determines whether the engine creates the parent interface.

    :raises InvalidRequest: when the value of an option is not valid.
    """
    options = body.options
    common = NetworkRecord(
        body.name,
        identity,
        time.time_ns(),
        "",
        ipv4=body.enable_ipv4 is not False,
        ipv6=bool(body.enable_ipv6),
        internal=body.internal,
        attachable=body.attachable,
        mtu=_mtu(options.get(MTU_OPTION, "")),
        driver_options=options,
        ipam_options=body.ipam.options if body.ipam else {},
        labels=body.labels,
        config_from=config_only.config_from(body),
    )
    if body.driver in PARENT_DRIVERS:
        return _parented(common, body.driver)
    return msgspec.structs.replace(
        common,
        bridge=check_bridge_name(options.get(NAME_OPTION) or f"br-{identity[:12]}"),
        icc=_flag(options, ICC_OPTION),
        masquerade=_flag(options, MASQUERADE_OPTION),
        host_binding=_binding(options.get(BINDING_OPTION, "")),
        past_firewall=_flag(options, BYPASS_FIREWALL_OPTION)
        if BYPASS_FIREWALL_OPTION in options
        else None,
    )


def _parented(common: NetworkRecord, driver: str) -> NetworkRecord:
    """Complete a macvlan or ipvlan record; without a parent the network is internal."""
    options = common.driver_options
    parent = options.get(PARENT_OPTION, "")
    if parent and (len(parent) > 15 or parent in (".", "..") or not set(parent).isdisjoint("/ \0")):
        raise InvalidRequest(f"invalid parent interface {parent!r}")
    flag = ""
    if driver == "macvlan":
        mode = _one_of(options, MACVLAN_MODE_OPTION, MACVLAN_MODES, "bridge")
    else:
        mode = _one_of(options, IPVLAN_MODE_OPTION, IPVLAN_MODES, "l2")
        flag = _one_of(options, IPVLAN_FLAG_OPTION, IPVLAN_FLAGS, "bridge")
    return msgspec.structs.replace(
        common,
        driver=driver,
        parent=parent or dummy_name(common.id),
        internal=common.internal or not parent,
        mode=mode,
        flag=flag,
    )


def _one_of(options: dict[str, str], name: str, known: Iterable[str], default: str) -> str:
    value = options.get(name) or default
    if value not in known:
        raise InvalidRequest(
            f"requested {name} {value!r} is not valid", hint=f"must be one of {', '.join(known)}"
        )
    return value


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
