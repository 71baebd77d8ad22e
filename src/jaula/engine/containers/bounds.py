"""The bounds of an authorised container, and the type of what authorises one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import ContainerRecord, ResolvedRequest


def no_reservation(record: ContainerRecord) -> None:
    """Count a record for no owner."""


class Bounds(msgspec.Struct, frozen=True):
    """The bounds of an authorized container, which its record keeps.

    ``mount_prefixes`` are the host directories below which its mounts follow no symbolic link.
    ``outside_log`` says that the name of its log server may not resolve to the host.
    ``engine_socket`` is the policy's entry for its engine socket. ``storage_size`` are the bytes
    that a container without a limit of its own may write, where the storage driver can limit it; 0
    for any. ``reserve`` counts the record for its owner before anything is created, and raises
    ``NotAuthorized`` if that is too much.
    """

    mount_prefixes: tuple[str, ...] = ()
    outside_log: bool = False
    engine_socket: str = ""
    storage_size: int = 0
    reserve: Callable[[ContainerRecord], None] = no_reservation


Authorize = Callable[[ContainerCreate, ResolvedRequest], Bounds]
"""Raises for a request that the policy does not allow. Returns the bounds of the container."""

AuthorizeBody = Callable[[ContainerCreate], Authorize]
"""Returns the authorization of a request that the engine has made for a caller."""


def allow_all(body: ContainerCreate, resolved: ResolvedRequest) -> Bounds:
    """Allow every request, without bounds: the engine itself is the client."""
    return Bounds()
