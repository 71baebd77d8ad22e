"""Volumes, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations
from jaula.engine.authz.request_ceilings import Share
from jaula.engine.model.label_filters import Filters
from jaula.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.api_documents import VolumeCreate

Document = dict[str, Any]
Labels = dict[str, str]


class VolumesApi:
    """Volumes may be created by callers with the volumes grant.

    Their owner, and callers with control of all containers, may use and remove them.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.volumes
        self._session = session

    async def create(self, body: VolumeCreate, *, transaction: str = "") -> Document:
        with self._session.begin("volume create", body.name) as action:
            action.require_volumes()
            action.authorize(relaxations.of_volume(body.driver_opts))
            if not self._session.services.volumes.exists(body.name):
                action.reserve(Share.VOLUMES)
                action.reserve_document(body)
            owner = self._session.caller.key
            return self._visible(await self._service.create(body, owner, transaction=transaction))

    async def import_(
        self, name: str, labels: Labels, created_at: str, stream: AsyncIterator[bytes]
    ) -> Document:
        session = self._session
        with session.begin("volume import", name) as action:
            session.require_import("volumes")
            action.reserve(Share.VOLUMES)
            return await self._service.import_(name, labels, created_at, stream, session.caller.key)

    async def list(self, filters: Filters) -> Document:
        self._session.require_read()
        document = await self._service.list(filters)
        return document | {"Volumes": [self._visible(each) for each in document["Volumes"]]}

    def inspect(self, name: str) -> Document:
        self._session.require_read()
        return self._visible(self._service.inspect(name))

    def _visible(self, document: Document) -> Document:
        return self._session.visible_volume(document)

    async def remove(
        self,
        name: str,
        *,
        force: bool,
        transaction: str | None = None,
        id: str | None = None,
    ) -> None:
        with self._session.begin("volume remove", name, revokes=True) as action:
            # Before the checks: another volume that gets the name after them is not removed.
            volume = self._service.find(name)
            by_label = action.may_remove(lambda: self._service.inspect(name)["Labels"])
            if not by_label:
                action.require_volumes()
            if (
                volume is None
                or id not in (None, volume.id)
                or transaction not in (None, volume.transaction)
            ):
                if force:
                    return
                raise NotFound(f"get {name[:80]}: no such volume")
            if not by_label:
                self._session.require_volume_removal(name)
            await self._service.remove(name, force=force, transaction=transaction, id=volume.id)

    async def prune(self, filters: Filters) -> Document:
        with self._session.begin("volume prune", "", revokes=True) as action:
            if action.may_prune(filters):
                return await self._service.prune(filters)
            action.require_volumes()
            return await self._service.prune(filters, self._session.controls)
