"""The namespaces of a start: those of other containers, an own sandbox, and its endpoints."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.engine.networks import endpoints
from jaula.engine.userns import join
from jaula.engine.userns.container_ids import ids_of, namespace_owner, take_ids
from jaula.engine.userns.id_ranges import keep_id_maps
from jaula.errors import Conflict, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaula.engine.containers.restore_source import RestoreSource
    from jaula.engine.containers.start_resources import StartResources
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.engine.networks.connect import NetworkConnector
    from jaula.state.container_records import ContainerRecord


def join_namespaces(
    services: Services, container: Container, resources: StartResources
) -> dict[str, str]:
    """Open the namespaces of other containers; return their paths, the user namespace among them.

    The spec shows these paths. The runtime enters the descriptors in ``resources.joined_fds``.

    :raises Conflict: when the other container does not run.
    :raises InvalidRequest: when the other container does not share the namespace.
    """
    paths: dict[str, str] = {}
    modes = container.record.resolved.namespaces
    if container.netns >= 0:
        resources.joined_fds["network"] = os.dup(container.netns)
    for kind, ref in modes.containers().items():
        other = services.container_store.find(ref)
        pid = other.held.pid if other.held is not None else other.record.pid
        if not pid or not (other.live or other.held is not None):
            raise Conflict(f"cannot join {kind} of a non running container: {other.name}")
        other_modes = other.record.resolved.namespaces
        if kind == "ipc" and not other_modes.shareable_ipc:
            raise InvalidRequest(
                f"cannot join IPC of a non-shareable container {other.name}",
                hint="start that one with --ipc=shareable",
            )
        paths[kind] = f"/proc/{pid}/ns/{join.NAMES[kind]}"
        if modes.user.host:
            continue
        if not other_modes.user.host:
            paths.setdefault("user", f"/proc/{pid}/ns/user")
        elif kind == "user":
            raise InvalidRequest(
                f"container {other.name} has no user namespace of its own to join",
                hint="it was created with --userns=host",
            )
    owners: dict[str, list[str]] = {}
    for kind, ref in modes.containers().items():
        owners.setdefault(ref, []).append(kind)
    if "user" in paths and not modes.user.container:
        owners[next(iter(owners))].append("user")
    for ref, kinds in owners.items():
        other = services.container_store.find(ref)
        resources.joined_fds |= join.open_namespaces(other, kinds)
    if len(owners) > 1 and not modes.user.host:
        _check_user_namespace(services, owners, resources.joined_fds.get("user"))
    return paths


def _check_user_namespace(services: Services, owners: Iterable[str], user_fd: int | None) -> None:
    """Check that containers whose namespaces are joined are in one user namespace.

    ``user_fd`` is that of the first one, None if it is the host's.

    :raises InvalidRequest: when one is in another.
    """
    first, *others = (services.container_store.find(ref) for ref in owners)
    for other in others:
        fds = join.open_namespaces(other, ("user",))
        try:
            same = user_fd is not None and os.path.samestat(
                os.fstat(fds["user"]), os.fstat(user_fd)
            )
        finally:
            os.close(fds["user"])
        if not same:
            raise InvalidRequest(
                f"containers {first.name} and {other.name} are in different user namespaces",
                hint="a container can join namespaces of one user namespace only",
            )


async def take(
    services: Services,
    connector: NetworkConnector,
    record: ContainerRecord,
    resources: StartResources,
    source: RestoreSource | None,
) -> None:
    """Take the ids of a start, its sandbox and its endpoints."""
    modes = record.resolved.namespaces
    # A container joins the user namespace of another one with that one's namespaces, or none.
    owner = namespace_owner(services, modes) if "user" in resources.joined_fds else None
    networks = {} if record.body.network_disabled else endpoints.settings_of(record)
    if source is not None:
        networks = source.endpoints(networks)
    if modes.network and networks:
        await connector.attach(
            record,
            networks,
            resources,
            lambda ids: keep_id_maps(record, ids),
            carrier=source is None,
        )
    elif owner is None and not modes.user.host:
        resources.reserved = take_ids(services, record)
    if owner is not None:
        resources.ids = resources.shared_ids = ids_of(owner)
        if resources.shared_ids is not None:
            services.id_ranges.share(resources.shared_ids.start)
    elif not modes.user.host:
        resources.ids = resources.reserved
