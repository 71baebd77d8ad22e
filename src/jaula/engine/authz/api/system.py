"""The engine itself, as one caller may see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.model.filters import Filters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine

Document = dict[str, Any]


class SystemApi:
    """The engine itself. Ping and version are for everyone who reached the socket."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.system
        self._visitor = visitor

    async def info(self) -> Document:
        self._visitor.look()
        return await self._inner.info()

    def version(self) -> Document:
        return self._inner.version()

    async def df(self) -> Document:
        self._visitor.look()
        return await self._inner.df()

    def events(
        self, since: float | None, until: float | None, filters: Filters
    ) -> AsyncIterator[Document]:
        self._visitor.look()
        return self._visitor.own_events(self._inner.events(since, until, filters))

    async def ping(self) -> None:
        await self._inner.ping()
