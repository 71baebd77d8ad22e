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

Document = dict[str, Any]
Documents = list[Document]


class RegistryApi:
    """Whoever may bring images in may also send them out; asking a registry is a deed of its own.

    Credentials are never noted, only whom they are for.
    """

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.distribution
        self._visitor = visitor

    async def pull(
        self, name: str, tag: str, platform: str | None, auth: RegistryAuth | None
    ) -> AsyncIterator[Document]:
        with self._visitor.deed("image pull", f"{name}:{tag}" if tag else name) as deed:
            deed.images()
            async with closing(self._inner.pull(name, tag, platform, auth)) as progress:
                async for document in progress:
                    yield deed.told(document)

    async def push(self, name: str, tag: str, auth: RegistryAuth | None) -> AsyncIterator[Document]:
        with self._visitor.deed("image push", f"{name}:{tag}" if tag else name) as deed:
            deed.images()
            async with closing(self._inner.push(name, tag, auth)) as progress:
                async for document in progress:
                    yield deed.told(document)

    async def login(self, auth: RegistryAuth) -> Document:
        with self._visitor.deed("registry login", auth.server_address) as deed:
            deed.images()
            return await self._inner.login(auth)

    async def inspect(self, name: str, auth: RegistryAuth | None) -> Document:
        self._visitor.run()
        return await self._inner.inspect(name, auth)

    async def manifest(self, name: str, auth: RegistryAuth | None) -> Document:
        self._visitor.run()
        return await self._inner.manifest(name, auth)

    async def push_list(
        self, name: str, body: ManifestListAdd, auth: RegistryAuth | None
    ) -> Document:
        with self._visitor.deed("manifest push", name) as deed:
            deed.images()
            return await self._inner.push_list(name, body, auth)

    async def search(
        self, term: str, limit: int, filters: Filters, auth: RegistryAuth | None
    ) -> Documents:
        self._visitor.run()
        return await self._inner.search(term, limit, filters, auth)
