"""The migrations of an engine, and the hooks that open and close them.

Every engine imports this module, so it imports the service itself at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from jaula.engine.engine import Engine
    from jaula.engine.hooks import TlsStream
    from jaula.engine.model.services import Services
    from jaula.features.migration.migrations import Migration
    from jaula.spec.api_params import Remote
    from jaula.state.container_records import ContainerRecord
    from jaula.tls import TlsCodec


def migrations(engine: Engine) -> Migration:
    """Return the migrations of an engine."""
    from jaula.features.kubernetes.hooks import pods
    from jaula.features.migration.migrations import Migration

    return Migration(engine.services, engine.containers, engine.images, engine.service(pods))


def _migrates(engine: Engine) -> bool:
    store = engine.services.container_store
    return any(each.record.migration is not None for each in store)


async def resume(engine: Engine) -> None:
    """Hold again the containers that a migration of the previous engine held."""
    if _migrates(engine):
        engine.service(migrations).resume_held()


async def recover(engine: Engine) -> None:
    """Bring the migrations of the previous engine to an end."""
    if _migrates(engine):
        await engine.service(migrations).recover()


async def close(engine: Engine) -> None:
    """End the migrations of an engine that stops."""
    if (found := engine.existing(migrations)) is not None:
        await found.close()


def tls_streams(engine: Engine) -> dict[str, TlsStream]:
    """Return who takes the connections that bring the files of a container."""

    from jaula.spec.migration import DATA_PROTOCOL

    async def receive_files(client: socket.socket, codec: TlsCodec, peer: Remote) -> None:
        await engine.service(migrations).accept_data(client, codec, peer)

    return {DATA_PROTOCOL: receive_files}


def inspect(services: Services, record: ContainerRecord) -> dict[str, Any]:
    """Return the member ``Migration`` of a container that was moved here or away."""
    migration = record.migration
    assert migration is not None
    return {
        "Migration": {
            "ID": migration.id,
            "Phase": str(migration.phase),
            "Peer": migration.peer,
            "Container": migration.container,
        }
    }
