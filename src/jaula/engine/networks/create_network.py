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
from jaula.spec.network_record import (
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
        raise NotAuthorized(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to'
            " connect this node to swarm and try again."
        )
    config_only.check(body)
    if body.ingress:
        raise NotAuthorized("Ingress network can only be global scope network")
    if body.scope == "swarm":
        raise NotAuthorized("cannot create a swarm scoped network when swarm is not active")
    ipam_driver = body.ipam.driver if body.ipam is not None else ""
    if ipam_driver == "null":
        raise InvalidRequest("ipv4 pool is empty")
    if ipam_driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam_driver}" not found')
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
        ipam_options=body.ipam.options if body.ipam else None,
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
        mode = options.get(MACVLAN_MODE_OPTION) or "bridge"
        _check_known("macvlan mode", mode, MACVLAN_MODES, "'bridge' mode is the macvlan driver")
    else:
        mode = options.get(IPVLAN_MODE_OPTION) or "l2"
        _check_known("ipvlan mode", mode, IPVLAN_MODES, "'l2' mode is the ipvlan driver")
        flag = options.get(IPVLAN_FLAG_OPTION) or "bridge"
        _check_known("ipvlan flag", flag, IPVLAN_FLAGS, "'bridge' is the ipvlan driver")
    if parent == "lo":
        raise InvalidRequest(f"loopback interface is not a valid {driver} parent link")
    return msgspec.structs.replace(
        common,
        driver=driver,
        parent=parent or dummy_name(common.id),
        internal=common.internal or not parent,
        mode=mode,
        flag=flag,
    )


def _check_known(kind: str, value: str, known: Iterable[str], default: str) -> None:
    if value not in known:
        raise InvalidRequest(
            f"requested {kind} '{value}' is not valid, {default} default",
            hint=f"must be one of {', '.join(known)}",
        )


def _flag(options: dict[str, str], name: str) -> bool:
    text = options.get(name, "true").lower()
    if text not in _TRUE + _FALSE:
        raise _not_parsed(name, options[name], "strconv.ParseBool")
    return text in _TRUE


def _binding(text: str) -> str:
    try:
        return str(IPv4Address(text)) if text else ""
    except AddressValueError:
        raise InvalidRequest(f"failed to parse {BINDING_OPTION} value: {text} (nil ip)") from None


def _not_parsed(name: str, text: str, function: str) -> InvalidRequest:
    """Return moby's error of an option, which names the function of Go that refused it."""
    return InvalidRequest(
        f'failed to parse {name} value: {text} ({function}: parsing "{text}": invalid syntax)'
    )


def _mtu(text: str) -> int:
    if not text:
        return 0
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdigit()):
        raise _not_parsed(MTU_OPTION, text, "strconv.Atoi")
    value = int(text)
    if value and not 68 <= value <= 65535:
        raise InvalidRequest(
            f"invalid MTU number: {value}", hint=f"{MTU_OPTION} is from 68 to 65535"
        )
    return value
