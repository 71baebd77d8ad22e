"""The containers and networks that a create request names: their ids are fixed at the creation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.engine.networks import endpoints
from jaula.errors import InvalidRequest, NotFound
from jaula.state.container_records import ResolvedRequest

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.spec.api_documents import ContainerCreate, HostConfig

NAMESPACE_MODES = ("network_mode", "pid_mode", "ipc_mode", "uts_mode", "userns_mode")
"""Fields of a host configuration that may name a container, as container:NAME."""


def with_ids(services: Services, host: HostConfig) -> HostConfig:
    """Return the request with container ids in its modes and the name of the runtime.

    Both are fixed when the container is created, whatever has the names later.
    """
    runtime = services.runtime_table.choose(host.runtime)
    return msgspec.structs.replace(with_container_ids(services, host), runtime=runtime)


def with_container_ids(services: Services, host: HostConfig) -> HostConfig:
    """Return the request with the ids of containers in the modes that name one.

    The name of an absent container stays.
    """
    changed = {}
    for field in NAMESPACE_MODES:
        kind, colon, ref = getattr(host, field).partition(":")
        if kind == "container" and colon and ref:
            changed[field] = f"container:{container_id(services, ref)}"
    return msgspec.structs.replace(host, **changed)


def with_network_id(services: Services, host: HostConfig) -> HostConfig:
    """Return the request with the id of the user's network that its network mode names.

    Another client may remove it and create another one with its name. The name of an absent network
    stays.
    """
    try:
        name = services.network_store.find(host.network_mode)
    except (NotFound, InvalidRequest):
        return host  # a mode, or the use case reports it with its own text
    network = services.network_store.get(name)
    return host if network is None else msgspec.structs.replace(host, network_mode=network.id)


def container_id(services: Services, ref: str) -> str:
    """Return the id of a container; the name of an absent one stays."""
    try:
        return services.container_store.find(ref).id
    except NotFound:
        return ref


def check_containers(services: Services, resolved: ResolvedRequest) -> None:
    """Check that the containers of the request exist.

    :raises InvalidRequest: when one does not. 404 would make the docker command look for the image
        at a registry.
    """
    sources = (source.container for source in resolved.volumes_from)
    for ref in (*resolved.namespaces.containers().values(), *sources):
        try:
            services.container_store.find(ref)
        except NotFound as error:
            raise InvalidRequest(error.message) from None


def networks_of(services: Services, body: ContainerCreate) -> endpoints.NetworkEndpoints:
    """Return the networks that the container is to be connected to."""
    try:
        networks = endpoints.select_networks(body, services.network_store.find)
    except NotFound as error:
        # 404 would make the docker command look for the image at a registry.
        raise InvalidRequest(
            error.message,
            hint="create it with network create, or use host, none or container:NAME",
        ) from None
    for name, settings in networks.items():
        endpoints.check(name, services.network_store.get(name), settings, new=True)
    return networks
