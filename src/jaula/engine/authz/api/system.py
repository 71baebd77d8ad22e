"""The engine itself, as one caller may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.model.filters import Filters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine
    from jaula.engine.system.disk_usage import Storage

Document = dict[str, Any]


class SystemApi:
    """The engine itself. Ping and version need no right."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._service = engine.system
        self._session = session

    async def info(self) -> Document:
        self._session.require_read()
        return await self._service.info()

    def version(self) -> Document:
        return self._service.version()

    async def df(self) -> Document:
        self._session.require_read()
        document = await self._service.df(self._session.cache_rights())
        volumes = [self._session.visible_volume(each) for each in document["Volumes"]]
        document["Volumes"] = document["VolumeUsage"]["Items"] = volumes
        return document

    async def storage(self) -> Storage:
        self._session.require_read()
        return await self._service.storage()

    def events(
        self, since: float | None, until: float | None, filters: Filters
    ) -> AsyncIterator[Document]:
        self._session.require_read()
        return self._session.visible_events(self._service.events(since, until, filters))

    async def ping(self) -> None:
        await self._service.ping()
