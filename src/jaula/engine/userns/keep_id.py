"""``--userns=keep-id``: whoever made a container has the same id inside as on the host. Pure.

Source: podman-run(1). All other ids are of a range of the container's own, as always. What the
person writes into a directory of the host is the person's there, and processes of the container
show up as theirs.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest
from jaula.security import id_ranges
from jaula.security.id_ranges import IdRange
from jaula.spec.api import ContainerCreate
from jaula.spec.runtime import IDMapping
from jaula.state.records import ContainerRecord

KEEP_ID = "keep-id"

IdMaps = tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]


def with_keep_id_user(
    body: ContainerCreate, owner: tuple[str, int], *, rootless: bool
) -> ContainerCreate:
    """The request with the program's user, where it names none.

    Raises ``InvalidRequest`` for an owner whose id cannot be kept.
    """
    if body.host_config.userns_mode != KEEP_ID:
        return body
    if rootless:
        raise InvalidRequest(
            "--userns=keep-id: this engine's containers have its user's id as root already",
            hint="leave it out",
        )
    name, gid = owner
    _maps(name, gid, IdRange(0))
    return msgspec.structs.replace(body, user=body.user or f"{name}:{gid}")


def keep_id_maps(record: ContainerRecord, ids: IdRange) -> IdMaps | None:
    """The id maps of a container that keeps its owner's id; None for every other one."""
    if not record.resolved.namespaces.keep_id:
        return None
    return _maps(record.owner, record.owner_gid, ids)


def _maps(owner: str, gid: int, ids: IdRange) -> IdMaps:
    if not owner.isdigit():
        raise InvalidRequest(f"--userns=keep-id: {owner} has no user id on this host")
    return id_ranges.keep_id_mappings(ids, int(owner)), id_ranges.keep_id_mappings(ids, gid)
