"""Checks and repairs of the engine's state, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.authz.authorization_policy import ContainerAccess
from jaula.engine.authz.use_case import Right, use_case
from jaula.engine.fsck.fsck import Fsck

if TYPE_CHECKING:
    from jaula.engine.authz.caller_session import Session
    from jaula.engine.engine import Engine

Document = dict[str, Any]


class FsckApi:
    """Images may be verified by all who run containers; the rest needs access to all containers."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.fsck
        self._session = session

    verify_images = use_case(Fsck.verify_images, Right.RUN)

    async def check(self, *, contents: bool) -> Document:
        self._session.require_read()
        if (
            not self._session.is_admin
            and self._session.rule.container_access < ContainerAccess.READ
        ):
            raise self._session.denial("check the objects of all owners")
        return await self._service.check(contents=contents)

    async def repair(self, *, contents: bool) -> Document:
        with self._session.begin("system repair", "", revokes=True) as action:
            action.require_all_containers("repair the engine")
            return await self._service.repair(contents=contents)
