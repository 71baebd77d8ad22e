"""The networks of a container, and its names on them. Pure.

Source: Docker Engine API 1.45, ``NetworkMode`` and ``NetworkingConfig`` of ``/containers/create``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network

from jaula.engine.model.container_store import short
from jaula.engine.networks import container_links
from jaula.errors import InvalidRequest, NotAuthorized, list_of
from jaula.kernel.rtnetlink import mac_bytes
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.api_networks import EndpointIPAMConfig, EndpointSettings
from jaula.spec.endpoint_record import Endpoint, Gateways
from jaula.spec.network_record import NetworkRecord
from jaula.state.container_records import ContainerRecord

DEFAULT = "bridge"
_WITHOUT_NETWORK = ("host", "none")
_ID_LENGTH = 64
_INVALID = "invalid config for network {}: invalid endpoint settings:"
_NOT_OWN = "user specified IP address is supported on user defined networks only"
_NO_SUBNET = (
    "user specified IP address is supported only when connecting to networks with user configured"
    " subnets"
)

NetworkEndpoints = dict[str, EndpointSettings]


def shares_network(mode: str) -> bool:
    """Return whether a network mode has no network to connect to."""
    return mode in _WITHOUT_NETWORK or mode.startswith("container:")


def select_networks(body: ContainerCreate, find: Callable[[str], str]) -> NetworkEndpoints:
    """Return the networks of a new container by name, the one of its network mode first.

    ``find`` returns the name of a network. The result is empty for the modes host, none and
    container.

    :raises InvalidRequest: when networks exclude each other.
    """
    mode = body.host_config.network_mode
    selected: NetworkEndpoints = {}
    for ref, settings in body.networking_config.endpoints_config.items():
        if shares_network(mode) and shares_network(ref):
            _check_shared(ref, settings)
            continue
        selected[find(DEFAULT if ref == "default" else ref)] = settings
    if shares_network(mode):
        if selected:
            raise InvalidRequest(
                f"conflicting options: a container with the network mode {mode.partition(':')[0]}"
                f" cannot be connected to the network {next(iter(selected))}"
            )
        return {}
    if mode in ("", "default"):
        return selected or {DEFAULT: EndpointSettings()}
    first = find(mode)
    if selected and first not in selected:
        return selected  # as in Docker, these replace the one of the mode
    return {first: selected.pop(first, EndpointSettings()), **selected}


def _check_shared(name: str, settings: EndpointSettings) -> None:
    """Check the settings of the network of another container or of the host, or of none.

    :raises InvalidRequest: when they name an address.
    """
    if not _has_address(settings):
        return
    if name in _WITHOUT_NETWORK:
        raise InvalidRequest(f"{_INVALID.format(name)}\n* {_NOT_OWN}\n* {_NO_SUBNET}")
    raise InvalidRequest(f"{_INVALID.format(name)}\n{_NOT_OWN}")


def _has_address(settings: EndpointSettings) -> bool:
    ipam = settings.ipam_config
    return ipam is not None and bool(ipam.ipv4_address or ipam.ipv6_address)


def settings_of(record: ContainerRecord) -> NetworkEndpoints:
    """Return the endpoint settings of a container by network.

    A record without networks is older than users' networks: it is on the default network.
    """
    if record.networks is not None:
        return record.networks
    mode = record.body.host_config.network_mode
    if shares_network(mode):
        return {}
    selected = record.body.networking_config.endpoints_config
    return {DEFAULT: selected.get(DEFAULT) or selected.get("default") or EndpointSettings()}


def check(
    name: str, network: NetworkRecord | None, settings: EndpointSettings, *, new: bool = False
) -> None:
    """Check that a network supports these settings; ``network`` is None for the default one.

    The messages are moby's (``validateEndpointSettings``). They name the network if the container
    is ``new``.

    :raises JaulaError: when it does not.
    """
    if name in _WITHOUT_NETWORK:
        raise InvalidRequest(
            "container cannot be connected to multiple networks with one of the networks in"
            " private (none) mode"
            if name == "none"
            else "container cannot be disconnected from host network or connected to host network"
        )
    check_kind(network)
    for text in settings.links:
        container_links.parse(text)
    context = f"invalid config for network {name}: " if new else ""
    errors = []
    if network is None and settings.aliases:
        errors.append(
            "network-scoped alias is supported only for containers in user defined networks"
        )
    ipam = settings.ipam_config or EndpointIPAMConfig()
    requested = ((4, ipam.ipv4_address), (6, ipam.ipv6_address))
    for version, text in requested:
        if text and not _is_address(text, version):
            errors.append(f"invalid IPv{version} address: {text}")
    for text in ipam.link_local_ips:
        if not (_is_address(text, 4) or _is_address(text, 6)):
            errors.append(f"invalid link-local IP address: {text}")
    if network is not None:
        errors += [_range_error(network, v, text) for v, text in requested if text]
    if errors := list(filter(None, errors)):
        raise InvalidRequest(f"{context}invalid endpoint settings:\n{list_of(errors)}")
    if ipam.link_local_ips:
        for text in ipam.link_local_ips:
            if not ip_address(text).is_link_local:
                raise InvalidRequest(f"invalid link local IP address: {text}")
        raise InvalidRequest(
            f"{context}invalid endpoint settings:\nlink-local addresses are not supported",
            hint="the firewall accepts one address of each family from an endpoint",
        )
    if settings.mac_address:
        try:
            mac_bytes(settings.mac_address)
        except ValueError:
            raise InvalidRequest(f"{context}invalid MAC address {settings.mac_address}") from None


def _is_address(text: str, version: int) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return address.version == version and not address.is_unspecified


def _range_error(network: NetworkRecord, version: int, text: str) -> str:
    """Return why a network cannot assign an address; '' if it can."""
    pool = network.ipv4_pool if version == 4 else network.ipv6_pool
    if pool is None or not network.asked_pools:
        return _NO_SUBNET
    if _is_address(text, version) and ip_address(text) in ip_network(pool.subnet):
        return ""
    return f"no configured subnet or ip-range contain the IP address {text}"


def check_kind(network: NetworkRecord | None) -> None:
    """Check that a network is not config-only.

    :raises NotAuthorized: when it is.
    """
    if network is not None and network.config_only:
        raise NotAuthorized("cannot create endpoint on configuration-only network")


def dns_names(record: ContainerRecord, settings: EndpointSettings) -> tuple[str, ...]:
    """Return the names of a container on a user's network, its own name first."""
    names = (record.name, *settings.aliases, short(record.id), record.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def link_aliases(record: ContainerRecord, settings: EndpointSettings) -> dict[str, str]:
    """Return the names of linked containers on a user's network, by alias in lower case.

    Links on the default network are lines of the hosts file, and are not in the result.
    """
    resolved = record.resolved
    own = () if container_links.by_address(resolved.namespaces) else resolved.links
    names = (*own, *map(container_links.parse, settings.links))
    return {link.alias.lower(): _resolver_name(link.ref) for link in names}


def _resolver_name(ref: str) -> str:
    """Return the name by which the DNS server knows a container; it does not know whole ids."""
    whole = len(ref) == _ID_LENGTH and not ref.strip("0123456789abcdef")
    return short(ref) if whole else ref


def needs_resolver(endpoints: Iterable[Endpoint]) -> bool:
    """Return whether the engine serves DNS to a container with these endpoints.

    The default network has no names. A container with an egress list needs the server there too,
    because it opens the addresses of names.
    """
    return any(e.network != DEFAULT or e.egress is not None for e in endpoints)


def free_interface(taken: Iterable[str]) -> str:
    """Return the first of eth0, eth1 and so on that is not in use."""
    used = set(taken)
    number = 0
    while f"eth{number}" in used:
        number += 1
    return f"eth{number}"


def gateways(endpoints: Iterable[Endpoint], networks: NetworkEndpoints) -> Gateways:
    """Return the endpoints that get a container's default routes.

    For each address family, it is the first one that has a way out. The order is libnetwork's: the
    highest priority, then networks with both families, then the name of the network.
    """

    def order(endpoint: Endpoint) -> tuple[int, int, str]:
        settings = networks.get(endpoint.network)
        priority = settings.gw_priority if settings is not None else 0
        return -priority, -(endpoint.routes_ipv4 + endpoint.routes_ipv6), endpoint.network

    ordered = sorted(endpoints, key=order)
    return Gateways(
        next((e for e in ordered if e.routes_ipv4), None),
        next((e for e in ordered if e.routes_ipv6), None),
    )
