"""The host name of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.engine.model.container_store import short
from jaula.errors import InvalidRequest

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.spec.api_documents import ContainerCreate
    from jaula.state.container_records import ResolvedRequest

_HOSTNAME_LIMIT = 63  # sethostname(2) allows 64; Docker's limit is RFC 1123's


def hostname(
    services: Services, body: ContainerCreate, resolved: ResolvedRequest, container_id: str
) -> str:
    """Return the host name that a container gets: its own, or that of one whose it shares.

    :raises InvalidRequest: when the requested one is not valid.
    """
    name, modes = body.hostname, resolved.namespaces
    if joined := modes.uts.container or modes.net.container:
        return services.container_store.find(joined).record.hostname
    if not name:
        if modes.net.host or modes.uts.host:
            return services.host.hostname
        return short(container_id)
    if not is_host_name(name):
        raise InvalidRequest(f"invalid hostname format: {name}")
    return name


def is_host_name(name: str, limit: int = _HOSTNAME_LIMIT) -> bool:
    """Return whether a name has only letters, digits and ``-._``; ``hosts`` gets it as a line."""
    plain = name.replace("-", "").replace(".", "").replace("_", "")
    return len(name) <= limit and plain.isascii() and plain.isalnum()
