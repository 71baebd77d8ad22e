"""Builds, as one caller may use them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine import relaxations
from jaula.engine.authz.api.image_rights import closing
from jaula.engine.authz.request_ceilings import UNLIMITED
from jaula.engine.authz.use_case import Right, use_case
from jaula.engine.containers.named_references import with_container_ids, with_network_id
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.threads import in_thread
from jaula.features.build.builder.builds import Builds
from jaula.features.build.builder.client_session import check_id
from jaula.features.build.hooks import builds
from jaula.spec.api_documents import ContainerCreate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.engine import Engine
    from jaula.features.build.build_options import BuildOptions, PruneOptions
    from jaula.features.build.builder.build_history import Attachment, BuildRecord
    from jaula.features.build.builder.build_session import BuildSession
    from jaula.features.build.builder.remote_tree import RemoteTree

Document = dict[str, Any]


def builds_api(api: EngineApi) -> BuildsApi:
    """Return the builds as the caller of a connection may use them."""
    return BuildsApi(api.engine, api.session)


class BuildsApi:
    """Builds need the right to run containers and to change images: a build does both.

    The limits and modes of a build are authorized like those of a container. The privileges that a
    Dockerfile requests are authorized when its RUN is reached.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.service(builds)
        self._session = session

    worker = use_case(Builds.worker, Right.READ)

    async def build(
        self, options: BuildOptions, stream: AsyncIterator[bytes] | None
    ) -> AsyncIterator[Document]:
        session = self._session
        exports = options.exports or ()
        names = (*options.names, *(name for export in exports for name in export.names))
        image = names[0] if names else ""
        pushed = [name for export in exports if export.push for name in export.names]
        pushed += [export.name for export in options.cache_to if export.name]
        with session.begin("image build", image, image=image) as action, ExitStack() as held:
            action.require_images()
            for name in pushed:
                held.enter_context(session.begin("image push", name)).require_images()
            host = with_container_ids(session.services, options.host)
            host = with_network_id(session.services, host)
            options = msgspec.structs.replace(options, host=host)
            body = ContainerCreate(cmd=("true",), host_config=host)
            resolved = resolve(body)
            action.authorize(relaxations.of_request(body, resolved))
            session.authorize_networks(body, resolved)
            session.check_request(body, resolved)
            quota = action.reserve_image(*names)
            progress = self._service.build(
                options,
                stream,
                resolved,
                quota=quota,
                authorize=session.authorize_step,
                cache_limit=UNLIMITED if session.is_admin else session.ceilings.build_cache,
            )
            async with closing(progress) as messages:
                async for document in messages:
                    yield document

    @property
    def owner(self) -> str:
        return self._session.caller.key

    async def find_session(self, id: str) -> BuildSession:
        self._session.require_run()
        return await self._service.sessions.find(id, self._session.caller.key)

    def opened_session(self, id: str, session: BuildSession) -> AbstractContextManager[None]:
        self._session.require_run()
        return self._service.sessions.opened(id, session)

    async def announce_session(self) -> None:
        await self._service.sessions.announce()

    async def open_remote(self, address: str, session: str) -> RemoteTree:
        with self._session.begin("image build", address) as action:
            action.require_images()
            return await self._service.open_remote(address, session, self._session.caller.key)

    def record(self, record: BuildRecord) -> None:
        self._service.history.add(self._session.caller.key, record)

    def records(self) -> list[BuildRecord]:
        self._session.require_read()
        return self._service.history.list(self._session.caller.key)

    def attachment(self, digest: str) -> Attachment | None:
        self._session.require_read()
        return self._service.history.attachment(self._session.caller.key, digest)

    def remove_record(self, ref: str) -> bool:
        self._session.require_run()
        return self._service.history.remove(self._session.caller.key, ref)

    def release(self, result: str) -> None:
        self._service.release(result, self._session.caller.key)

    async def usage(self) -> list[Document]:
        self._session.require_read()
        return await in_thread(self._service.usage, self._session.cache_rights())

    async def cancel(self, build_id: str) -> None:
        with self._session.begin("image build cancel", build_id, revokes=True) as action:
            action.require_run()
            owner = None if self._session.is_admin else self._session.caller.key
            await self._service.cancel(build_id, owner)

    async def prune(self, options: PruneOptions) -> Document:
        with self._session.begin("build cache prune", "", revokes=True) as action:
            action.require_images()
            return await self._service.prune(options, self._session.name_rights())

    def check_session(self, id: str) -> None:
        self._session.require_run()
        check_id(id)

    async def session(self, id: str, descriptor: int, early: bytes) -> None:
        try:
            self._session.require_run()
        except BaseException:
            os.close(descriptor)
            raise
        await self._service.sessions.serve(id, self._session.caller.key, descriptor, early)
