"""Registries, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.authz.api.images import closing
from jaula.engine.model.filters import Filters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.api import ManifestListAdd, RegistryAuth
    from jaula.spec.image import Platform
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

    async def inspect(self, name: str, auth: RegistryAuth | None) -> Document:
        self._session.require_images()
        return await self._service.inspect(name, auth)

    async def manifest(self, name: str, auth: RegistryAuth | None) -> Document:
        self._session.require_images()
        return await self._service.manifest(name, auth)

    async def push_list(
        self, name: str, body: ManifestListAdd, auth: RegistryAuth | None
    ) -> Document:
        with self._session.begin("manifest push", name) as action:
            action.require_images()
            return await self._service.push_list(name, body, auth)

    async def search(
        self, term: str, limit: int, filters: Filters, auth: RegistryAuth | None
    ) -> Documents:
        self._session.require_images()
        return await self._service.search(term, limit, filters, auth)
