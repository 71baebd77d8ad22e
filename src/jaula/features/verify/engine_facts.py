"""What a verification asks an engine for, beside what it reads from the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.cli.cli_errors import EngineError
from jaula.features.verify.model.host_snapshot import HostSnapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaula.cli.client.api_client import Client

_POLICY = "/jaula/policy/images"
_NOT_FOUND = 404


def image_policy(client: Client) -> Mapping[str, Any] | None:
    """Return the engine's document of its image policy, None if it has no such feature."""
    try:
        document: Mapping[str, Any] = client.get(_POLICY)
    except EngineError as error:
        if error.code != _NOT_FOUND:
            raise
        return None
    return document


def snapshot_of(client: Client) -> HostSnapshot:
    """Return a snapshot of the host, with the networks, devices and image policy of an engine."""
    snapshot = HostSnapshot()
    snapshot.networks = client.get("/networks")
    snapshot.cdi_directories = client.get("/info")["CDISpecDirs"]
    snapshot.image_policy = image_policy(client)
    return snapshot
