"""Checkpoints of containers, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations
from jaula.engine.authz.api.container_rights import create_authorization
from jaula.engine.model.seal import request_seal
from jaula.features.checkpoint.checkpoint_store import Part
from jaula.features.checkpoint.hooks import archives, checkpoints, clones, rollbacks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.containers.bounds import AuthorizeBody
    from jaula.engine.engine import Engine
    from jaula.spec.api_documents import CheckpointClone, CheckpointCreate
    from jaula.spec.api_params import ContainerCreated, ImportedCheckpoint

Document = dict[str, Any]
Documents = list[Document]


def checkpoints_api(api: EngineApi) -> CheckpointsApi:
    """Return the checkpoints as the caller of a connection may use them."""
    return CheckpointsApi(api.engine, api.session)


class CheckpointsApi:
    """The memory of a container is read and replaced by callers that may enter it."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._containers = engine.containers
        self._session = session
        self._checkpoints = engine.containers.service(checkpoints)
        self._archives = engine.containers.service(archives)

    async def create(self, ref: str, body: CheckpointCreate) -> None:
        with self._session.begin("checkpoint create", ref) as action:
            action.require_enter(ref)
            action.authorize_more(relaxations.of_checkpoint_directory(body.checkpoint_dir))
            await self._checkpoints.create(self._containers.find(ref), body)

    async def clone(
        self, ref: str, checkpoint: str, directory: str, body: CheckpointClone
    ) -> ContainerCreated:
        session = self._session
        with session.begin("container clone", ref) as action:
            action.require_enter(ref)
            privileges = relaxations.of_checkpoint_directory(directory)
            action.authorize_more(privileges)
            created = await self._clone(
                ref,
                checkpoint,
                directory,
                body,
                owner=session.owner,
                authorize=lambda request: create_authorization(
                    self._session, action, request, body.name or ""
                ),
            )
            action.authorize_more(privileges)  # those of the request have replaced it
            action.describe(self._containers.find(created.id))
            action.seal = request_seal(self._containers.find(created.id).record)
            return created

    async def _clone(
        self,
        ref: str,
        name: str,
        directory: str,
        options: CheckpointClone,
        *,
        owner: tuple[str, int],
        authorize: AuthorizeBody,
    ) -> ContainerCreated:
        """Create a container that goes on from a checkpoint of another one."""
        container, action = self._containers.find(ref), "clone"
        manifest = await self._checkpoints.open(container, name, directory, None, action)
        return await self._containers.service(clones).clone(
            manifest,
            options,
            owner=owner,
            authorize=authorize,
            # The images are verified when the clone is started.
            verify=lambda: self._checkpoints.verify(container, manifest, Part.FILES, action),
        )

    async def manifest(self, ref: str, checkpoint: str, directory: str) -> bytes:
        self._session.require_container_read(ref)
        self._session.authorize(relaxations.of_checkpoint_directory(directory))
        container = self._containers.find(ref)
        return await self._archives.manifest(container, checkpoint, directory)

    async def export(
        self, ref: str, checkpoint: str, directory: str, signature: bytes
    ) -> AsyncIterator[bytes]:
        with self._session.begin("checkpoint export", ref) as action:
            container = action.require_enter(ref)
            action.authorize_more(relaxations.of_checkpoint_directory(directory))
            return await self._archives.export(container, checkpoint, directory, signature)

    async def import_(
        self, stream: AsyncIterator[bytes], options: CheckpointClone
    ) -> ImportedCheckpoint:
        session = self._session
        with session.begin("checkpoint import", options.name) as action:
            action.require_run()
            imported = await self._archives.import_(
                stream,
                options,
                owner=session.owner,
                authorize=lambda request: create_authorization(
                    self._session, action, request, options.name or ""
                ),
                authorize_existing=action.require_enter,
            )
            container = self._containers.find(imported.container)
            action.describe(container)
            if imported.created:
                action.seal = request_seal(container.record)
            return imported

    async def rollback(self, ref: str, checkpoint: str, directory: str) -> None:
        with self._session.begin("container rollback", ref) as action:
            action.authorize_start(ref)
            action.require_enter(ref)
            action.authorize_more(relaxations.of_checkpoint_directory(directory))
            await self._containers.service(rollbacks).rollback(
                self._containers.find(ref), checkpoint, directory
            )

    def list(self, ref: str, directory: str) -> Documents:
        self._session.require_read()
        self._session.authorize(relaxations.of_checkpoint_directory(directory))
        return self._checkpoints.list(self._containers.find(ref), directory)

    async def inspect(self, ref: str, name: str, directory: str) -> Document:
        self._session.require_container_read(ref)
        self._session.authorize(relaxations.of_checkpoint_directory(directory))
        return await self._checkpoints.inspect(self._containers.find(ref), name, directory)

    async def remove(self, ref: str, name: str, directory: str) -> None:
        with self._session.begin("checkpoint remove", ref, revokes=True) as action:
            action.require_control(ref)
            action.authorize_more(relaxations.of_checkpoint_directory(directory))
            await self._checkpoints.remove(self._containers.find(ref), name, directory)
