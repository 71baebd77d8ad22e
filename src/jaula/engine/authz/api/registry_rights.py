"""Registries, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.authz.api.image_rights import closing
from jaula.engine.authz.use_case import Right, use_case
from jaula.engine.images.registry_images import RegistryService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.api_documents import RegistryAuth
    from jaula.spec.image_documents import Platform
    from jaula.spec.layer_compression import LayerCompression

Document = dict[str, Any]
Documents = list[Document]


class RegistryApi:
    """Registries need the images grant, for a query as for a pull and a push.

    The engine connects from the host's network. So a caller that may only read cannot make it
    connect to an address of its choice.

    The audit log has the address of the registry, never the credentials.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.distribution
        self._session = session

    inspect = use_case(RegistryService.inspect, Right.IMAGES)
    manifest = use_case(RegistryService.manifest, Right.IMAGES)
    search = use_case(RegistryService.search, Right.IMAGES)
    push_list = use_case(RegistryService.push_list, Right.IMAGES, "manifest push")

    async def pull(
        self, name: str, tag: str, platform: str | None, auth: RegistryAuth | None
    ) -> AsyncIterator[Document]:
        with self._session.begin("image pull", f"{name}:{tag}" if tag else name) as action:
            action.require_images()
            quota = self._session.image_quota()
            async with closing(self._service.pull(name, tag, platform, auth, quota)) as progress:
                async for document in progress:
                    yield action.check_progress(document)

    async def push(
        self,
        name: str,
        tag: str,
        auth: RegistryAuth | None,
        platform: Platform | None = None,
        compression: LayerCompression | None = None,
    ) -> AsyncIterator[Document]:
        with self._session.begin("image push", f"{name}:{tag}" if tag else name) as action:
            action.require_images()
            quota = self._session.image_quota()
            pushed = self._service.push(name, tag, auth, quota, platform, compression=compression)
            async with closing(pushed) as progress:
                async for document in progress:
                    yield action.check_progress(document)

    async def login(self, auth: RegistryAuth) -> Document:
        with self._session.begin("registry login", auth.server_address) as action:
            action.require_images()
            return await self._service.login(auth)
