"""Images, as one caller may use them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from jaula.engine.model.filters import Filters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine

Document = dict[str, Any]
Documents = list[Document]


@asynccontextmanager
async def closing(told: AsyncIterator[Document]) -> AsyncIterator[AsyncIterator[Document]]:
    """End the work behind lines of progress when nobody reads them any more."""
    try:
        yield told
    finally:
        if isinstance(told, AsyncGenerator):
            await told.aclose()


class ImagesApi:
    """Images are common to all who may run containers and have the grant."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.images
        self._visitor = visitor

    def list(self, *, all: bool, filters: Filters, digests: bool) -> Documents:
        self._visitor.look()
        return self._inner.list(all=all, filters=filters, digests=digests)

    def inspect(self, ref: str) -> Document:
        self._visitor.look()
        return self._inner.inspect(ref)

    def history(self, ref: str) -> Documents:
        self._visitor.look()
        return self._inner.history(ref)

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        with self._visitor.deed("image tag", f"{ref} {repo}:{tag}") as deed:
            deed.images()
            await self._inner.tag(ref, repo, tag)

    async def remove(self, ref: str, *, force: bool, noprune: bool) -> Documents:
        with self._visitor.deed("image remove", ref, lessens=True) as deed:
            deed.images()
            return await self._inner.remove(ref, force=force, noprune=noprune)

    async def load(self, stream: AsyncIterator[bytes], *, quiet: bool) -> AsyncIterator[Document]:
        with self._visitor.deed("image load", "") as deed:
            deed.images()
            async with closing(self._inner.load(stream, quiet=quiet)) as progress:
                async for document in progress:
                    yield deed.told(document)

    def save(self, names: Sequence[str]) -> AsyncIterator[bytes]:
        self._visitor.look()
        return self._inner.save(names)

    async def import_(
        self,
        stream: AsyncIterator[bytes],
        repo: str,
        tag: str,
        changes: Sequence[str],
        message: str,
    ) -> AsyncIterator[Document]:
        with self._visitor.deed("image import", f"{repo}:{tag}") as deed:
            deed.images()
            async with closing(
                self._inner.import_(stream, repo, tag, changes, message)
            ) as progress:
                async for document in progress:
                    yield deed.told(document)

    async def prune(self, filters: Filters) -> Document:
        with self._visitor.deed("image prune", "", lessens=True) as deed:
            deed.images()
            return await self._inner.prune(filters)
