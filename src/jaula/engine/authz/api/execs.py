"""Further processes in containers, as one caller may have them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations as asking

if TYPE_CHECKING:
    from jaula.engine.authz.session import Session
    from jaula.engine.containers.exec import Exec
    from jaula.engine.engine import Engine
    from jaula.spec.api import ExecCreate

Document = dict[str, Any]


class ExecsApi:
    """Further processes: their container's owner may have them."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.execs
        self._visitor = visitor

    async def create(self, ref: str, body: ExecCreate) -> str:
        with self._visitor.deed("exec create", ref, argv=body.cmd) as deed:
            deed.container(ref)
            deed.judged(asking.of_exec(body))
            return await self._inner.create(ref, body)

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
            execed = self._find(exec_id)
            with self._visitor.deed(
                "exec start", execed.container.id, argv=execed.body.cmd
            ) as deed:
                deed.container(execed.container.id)
                deed.judged(asking.of_exec(execed.body))
                owned, fd = fd, None
                await self._inner.start(exec_id, owned, early, detach, tty, console)
        finally:
            if fd is not None:
                os.close(fd)

    def _find(self, exec_id: str) -> Exec:
        self._visitor.look()
        return self._inner.find(exec_id)

    def inspect(self, exec_id: str) -> Document:
        self._visitor.read(self._find(exec_id).container.id)
        return self._inner.inspect(exec_id)

    async def resize(self, exec_id: str, h: int, w: int) -> None:
        self._visitor.control(self._find(exec_id).container.id)
        await self._inner.resize(exec_id, h, w)

    def tty(self, exec_id: str) -> bool:
        self._visitor.control(self._find(exec_id).container.id)
        return self._inner.tty(exec_id)
