"""The engine itself, as one caller may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.authz.use_case import Right, use_case
from jaula.engine.model.label_filters import Filters
from jaula.engine.system.system import System

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.engine import Engine

Document = dict[str, Any]


class SystemApi:
    """The engine itself. Ping and version need no right."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._service = engine.system
        self._session = session

    info = use_case(System.info, Right.READ)
    version = use_case(System.version, Right.NONE)
    ping = use_case(System.ping, Right.NONE)
    storage = use_case(System.storage, Right.READ)

    async def df(self) -> Document:
        self._session.require_read()
        document = await self._service.df(self._session.cache_rights())
        volumes = [self._session.visible_volume(each) for each in document["Volumes"]]
        document["Volumes"] = document["VolumeUsage"]["Items"] = volumes
        return document

    def events(
        self, since: float | None, until: float | None, filters: Filters
    ) -> AsyncIterator[Document]:
        self._session.require_read()
        return self._session.visible_events(self._service.events(since, until, filters))
