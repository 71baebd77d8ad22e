"""Debug sessions, as one caller may use them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations
from jaula.engine.authz.api.container_rights import create_authorization
from jaula.engine.containers.container_exec import LEAST_SIZE
from jaula.engine.model.seal import request_seal
from jaula.engine.threads import shielded
from jaula.features.debug.debug_session import create, sessions
from jaula.features.debug.hooks import debug_copies
from jaula.spec.api_documents import DEBUG_IMAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.engine import Engine
    from jaula.spec.api_documents import DebugCreate

Document = dict[str, Any]


def debug_api(api: EngineApi) -> DebugApi:
    """Return the debug sessions as the caller of a connection may use them."""
    return DebugApi(api.engine, api.session)


class DebugApi:
    """Debug sessions may be created by callers that may enter the container."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._containers = engine.containers
        self._copies = engine.containers.service(debug_copies)
        self._session = session

    async def create(self, ref: str, body: DebugCreate) -> str:
        image = body.image or DEBUG_IMAGE
        with self._session.begin("debug create", ref, argv=body.cmd, image=image) as action:
            action.require_enter(ref)
            action.authorize(relaxations.of_exec(body))
            action.reserve_document(body, least=LEAST_SIZE)
            return await create(self._engine, ref, body, owner=self._session.share_key)

    def list(self, ref: str) -> list[Document]:
        self._session.require_container_read(ref)
        return sessions(self._engine, ref)

    async def create_copy(self, ref: str, body: DebugCreate) -> AsyncIterator[Document]:
        """Yield the container of a debug session. It is removed when the iterator is closed."""
        session, image = self._session, body.image or DEBUG_IMAGE
        with session.begin("debug create", ref, argv=body.cmd, image=image) as action:
            action.require_run()
            if self._copies.find_source(ref) is not None:
                action.require_enter(ref)
            created = await self._copies.create(
                ref,
                body,
                owner=session.owner,
                authorize=lambda request: create_authorization(session, action, request, ""),
            )
            action.seal = request_seal(self._containers.find(created.id).record)
        try:
            yield {"Id": created.id, "Warnings": created.warnings}
            await asyncio.get_running_loop().create_future()  # until the client is gone
        finally:
            await shielded(self._copies.remove(created.id))
