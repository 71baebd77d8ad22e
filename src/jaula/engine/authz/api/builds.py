"""Builds, as one caller may ask for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine import relaxations as asking
from jaula.engine.authz.api.images import closing
from jaula.engine.builder.client_session import check_id
from jaula.engine.containers.create import with_container_ids
from jaula.engine.containers.resolved_request import resolve
from jaula.spec.api import ContainerCreate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.build import BuildOptions, PruneOptions

Document = dict[str, Any]


class BuildsApi:
    """Whoever may run containers and change images may build: a build does both.

    Limits and modes are judged as a container's; what a Dockerfile asks for is when it does.
    """

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.builds
        self._visitor = visitor

    async def build(
        self, options: BuildOptions, stream: AsyncIterator[bytes]
    ) -> AsyncIterator[Document]:
        visitor = self._visitor
        image = options.names[0] if options.names else ""
        with visitor.deed("image build", image, image=image) as deed:
            deed.images()
            host = with_container_ids(visitor.parts, options.host)
            options = msgspec.structs.replace(options, host=host)
            resolved = resolve(ContainerCreate(cmd=("true",), host_config=host))
            deed.judged(asking.of_request(resolved))
            progress = self._inner.build(
                options, stream, resolved, owner=visitor.caller.key, judge=visitor.judge
            )
            async with closing(progress) as told:
                async for document in told:
                    yield document

    async def cancel(self, build_id: str) -> None:
        with self._visitor.deed("image build cancel", build_id, lessens=True) as deed:
            deed.run()
            owner = None if self._visitor.mighty else self._visitor.caller.key
            await self._inner.cancel(build_id, owner)

    async def prune(self, options: PruneOptions) -> Document:
        with self._visitor.deed("build cache prune", "", lessens=True) as deed:
            deed.images()
            return await self._inner.prune(options)

    def check_session(self, id: str) -> None:
        self._visitor.run()
        check_id(id)

    async def session(self, id: str, descriptor: int, early: bytes) -> None:
        try:
            self._visitor.run()
        except BaseException:
            os.close(descriptor)
            raise
        await self._inner.sessions.serve(id, self._visitor.caller.key, descriptor, early)
