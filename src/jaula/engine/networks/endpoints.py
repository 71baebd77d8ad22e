"""Which networks a container is to be connected to, and under which names. Pure.

Source: Docker Engine API 1.45, ``NetworkMode`` and ``NetworkingConfig`` of ``/containers/create``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address

from jaula.engine.model.container_store import short
from jaula.engine.networks import links
from jaula.errors import InvalidRequest, NotAuthorized
from jaula.kernel.links import mac_bytes
from jaula.spec.api import ContainerCreate
from jaula.spec.api_networks import EndpointSettings
from jaula.spec.network import NetworkRecord
from jaula.state.records import ContainerRecord

DEFAULT = "bridge"
_ALONE = ("host", "none")
_ID_LENGTH = 64

NetworkEndpoints = dict[str, EndpointSettings]


def shares_network(mode: str) -> bool:
    """Whether a network mode leaves no network to connect to."""
    return mode in _ALONE or mode.startswith("container:")


def select_networks(body: ContainerCreate, find: Callable[[str], str]) -> NetworkEndpoints:
    """The networks of a new container by name, the one of its network mode first.

    ``find`` gives the name of a network. With a mode that is no network it is empty.

    :raises InvalidRequest: networks that exclude each other.
    """
    mode = body.host_config.network_mode
    wanted: NetworkEndpoints = {}
    for ref, settings in body.networking_config.endpoints_config.items():
        if ref == mode and shares_network(mode):
            continue
        wanted[find(DEFAULT if ref == "default" else ref)] = settings
    if shares_network(mode):
        if wanted:
            raise InvalidRequest(
                f"conflicting options: a container with the network mode {mode.partition(':')[0]}"
                f" cannot be connected to the network {next(iter(wanted))}"
            )
        return {}
    if mode in ("", "default"):
        return wanted or {DEFAULT: EndpointSettings()}
    first = find(mode)
    return {first: wanted.pop(first, EndpointSettings()), **wanted}


def settings_of(record: ContainerRecord) -> NetworkEndpoints:
    """What a container is to be connected to, for records from before there were networks too."""
    if record.networks is not None:
        return record.networks
    mode = record.body.host_config.network_mode
    if shares_network(mode):
        return {}
    wanted = record.body.networking_config.endpoints_config
    return {DEFAULT: wanted.get(DEFAULT) or wanted.get("default") or EndpointSettings()}


def check(name: str, network: NetworkRecord | None, settings: EndpointSettings) -> None:
    """Refuse what this network cannot give; ``network`` is None for the default one.

    :raises JaulaError: what is wrong.
    """
    if name in _ALONE:
        raise InvalidRequest(
            "container cannot be connected to multiple networks with one of the networks in"
            " private (none) mode"
            if name == "none"
            else "container cannot be disconnected from host network or connected to host network"
        )
    check_kind(network)
    for text in settings.links:
        links.parse(text)
    if network is None and settings.aliases:
        raise InvalidRequest("network-scoped aliases are only supported for user-defined networks")
    ipam = settings.ipam_config
    for text, version in ((ipam.ipv4_address, 4), (ipam.ipv6_address, 6)) if ipam else ():
        if not text:
            continue
        try:
            valid = ip_address(text).version == version
        except ValueError:
            valid = False
        if not valid:
            raise InvalidRequest(f"invalid IPv{version} address: {text}")
        if network is not None and not network.asked_pools:
            raise InvalidRequest(
                "invalid config for network "
                f"{name}: user specified IP address is supported only when connecting to networks"
                " with user configured subnets"
            )
    if settings.mac_address:
        try:
            mac_bytes(settings.mac_address)
        except ValueError:
            raise InvalidRequest(f"invalid MAC address: {settings.mac_address}") from None


def check_kind(network: NetworkRecord | None) -> None:
    """Refuse a network that is settings alone.

    :raises NotAuthorized: it is one.
    """
    if network is not None and network.config_only:
        raise NotAuthorized("cannot create endpoint on configuration-only network")


def dns_names(record: ContainerRecord, settings: EndpointSettings) -> tuple[str, ...]:
    """What others of a user's network may call a container, its own name first."""
    found = (record.name, *settings.aliases, short(record.id), record.hostname)
    return tuple(dict.fromkeys(name for name in found if name))


def link_aliases(record: ContainerRecord, settings: EndpointSettings) -> dict[str, str]:
    """What a container calls others on a user's network: their names by alias, in lower case.

    Links on the default network are lines of the hosts file, and of no other network.
    """
    resolved = record.resolved
    own = () if links.by_address(resolved.namespaces) else resolved.links
    found = (*own, *map(links.parse, settings.links))
    return {link.alias.lower(): _known_as(link.ref) for link in found}


def _known_as(ref: str) -> str:
    """What the resolver knows a container by: not its whole id."""
    whole = len(ref) == _ID_LENGTH and not ref.strip("0123456789abcdef")
    return short(ref) if whole else ref


def free_interface(taken: Iterable[str]) -> str:
    """The first of eth0, eth1 and so on that is not taken."""
    used = set(taken)
    number = 0
    while f"eth{number}" in used:
        number += 1
    return f"eth{number}"


def gateway_network(internal: dict[str, bool]) -> str:
    """Which network leads outside: the first that is not internal, else the first.

    ``internal`` says so of each of a container's networks, in their order.
    """
    return next((name for name, inside in internal.items() if not inside), next(iter(internal)))
