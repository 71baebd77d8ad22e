"""Exec processes, as one caller may use them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations
from jaula.engine.containers.container_exec import LEAST_SIZE

if TYPE_CHECKING:
    from asyncio import Future

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.containers.container_exec import Exec
    from jaula.engine.engine import Engine
    from jaula.spec.api_documents import ExecCreate

Document = dict[str, Any]


class ExecsApi:
    """Exec processes may be used by callers that control the container."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.execs
        self._session = session

    async def create(self, ref: str, body: ExecCreate) -> str:
        with self._session.begin("exec create", ref, argv=body.cmd) as action:
            action.require_enter(ref)
            action.authorize(relaxations.of_exec(body))
            action.reserve_document(body, least=LEAST_SIZE)
            return await self._service.create(ref, body, owner=self._session.share_key)

    async def start(
        self,
        exec_id: str,
        fd: int | None,
        early: bytes,
        detach: bool,
        tty: bool,
        console: tuple[int, int] | None,
    ) -> None:
        try:
            exec_process = self._find(exec_id)
            toolbox = exec_process.toolbox
            with self._session.begin(
                "exec start" if toolbox is None else "debug start",
                exec_process.container.id,
                argv=exec_process.body.cmd,
                image="" if toolbox is None else toolbox.image,
            ) as action:
                action.require_enter(exec_process.container.id)
                action.authorize(relaxations.of_exec(exec_process.body))
                owned, fd = fd, None
                await self._service.start(exec_id, owned, early, detach, tty, console)
        finally:
            if fd is not None:
                os.close(fd)

    def _find(self, exec_id: str) -> Exec:
        self._session.require_read()
        return self._service.find(exec_id)

    def exit_future(self, exec_id: str) -> Future[int]:
        self._session.require_container_read(self._find(exec_id).container.id)
        return self._service.exit_future(exec_id)

    def inspect(self, exec_id: str) -> Document:
        self._session.require_container_read(self._find(exec_id).container.id)
        return self._service.inspect(exec_id)

    async def resize(self, exec_id: str, h: int, w: int) -> None:
        self._session.require_control(self._find(exec_id).container.id)
        await self._service.resize(exec_id, h, w)

    def check(self, exec_id: str) -> None:
        container = self._session.require_control(self._find(exec_id).container.id)
        self._session.require_engine_socket(container)
        self._service.check(exec_id)
