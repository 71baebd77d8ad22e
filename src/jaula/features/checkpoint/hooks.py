"""The checkpoints of an engine, and the hooks that use them.

Every engine imports this module, so it imports what serves a request at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.features.checkpoint.checkpoint_store import checkpoint_store

if TYPE_CHECKING:
    from jaula.engine.containers.containers import Containers
    from jaula.engine.containers.restore_source import RestoreSource
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.checkpoint.checkpoint_export import CheckpointArchives
    from jaula.features.checkpoint.checkpoints import Checkpoints
    from jaula.features.checkpoint.clone_container import Clones
    from jaula.features.checkpoint.rollback_container import Rollbacks
    from jaula.state.container_records import ContainerRecord


def checkpoints(containers: Containers) -> Checkpoints:
    """Return the checkpoints of containers."""
    from jaula.features.checkpoint.checkpoints import Checkpoints

    return Checkpoints(containers.services)


def clones(containers: Containers) -> Clones:
    """Return what creates containers from checkpoints."""
    from jaula.features.checkpoint.clone_container import Clones

    return Clones(containers.services, containers.exit_handler)


def archives(containers: Containers) -> CheckpointArchives:
    """Return the export and the import of checkpoints."""
    from jaula.features.checkpoint.checkpoint_export import CheckpointArchives

    return CheckpointArchives(
        containers.services, containers.service(checkpoints), containers.service(clones)
    )


def rollbacks(containers: Containers) -> Rollbacks:
    """Return the rollbacks of containers."""
    from jaula.features.checkpoint.rollback_container import Rollbacks

    return Rollbacks(
        containers.services,
        containers.service(checkpoints),
        containers.exit_handler,
        containers.end,
        containers.start_container,
    )


async def sweep(engine: Engine) -> None:
    """Remove what a killed engine left of checkpoints that were not complete."""
    ids = {container.id for container in engine.services.container_store}
    engine.services.service(checkpoint_store).sweep(ids)


def remove_all(services: Services, record: ContainerRecord) -> None:
    """Remove the checkpoints of a container that is removed."""
    services.service(checkpoint_store).remove_all(record.id)


async def open_checkpoint(
    containers: Containers, container: Container, name: str, directory: str
) -> RestoreSource:
    """Return the checkpoint that a start continues; its images were verified."""
    from jaula.features.checkpoint.checkpoint_source import CheckpointSource
    from jaula.features.checkpoint.checkpoint_store import Part

    manifest = await containers.service(checkpoints).open(container, name, directory, Part.IMAGES)
    if container.record.rollback:
        await put_back(containers, container)
    return CheckpointSource(containers.services, manifest)


async def put_back(containers: Containers, container: Container) -> None:
    """Put the former files in place before a container with a failed rollback is started."""
    await containers.service(rollbacks).put_back(container)


async def recover(containers: Containers, container: Container) -> None:
    """Go on with a rollback of a killed engine, up to the start."""
    await containers.service(rollbacks).recover(container)


async def resume(containers: Containers, container: Container) -> None:
    """Start a container after :func:`recover`."""
    work = containers.service(rollbacks).resume(container)
    containers.exit_handler.tasks.spawn(work)
