"""Volumes, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations as asking
from jaula.engine.model.filters import Filters

if TYPE_CHECKING:
    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.api import VolumeCreate

Document = dict[str, Any]


class VolumesApi:
    """Volumes are common to all who may run containers; making and removing needs the grant."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.volumes
        self._visitor = visitor

    async def create(self, body: VolumeCreate) -> Document:
        with self._visitor.deed("volume create", body.name) as deed:
            deed.volumes()
            deed.judged(asking.of_volume(body.driver_opts))
            return await self._inner.create(body)

    def list(self, filters: Filters) -> Document:
        self._visitor.look()
        return self._inner.list(filters)

    def inspect(self, name: str) -> Document:
        self._visitor.look()
        return self._inner.inspect(name)

    async def remove(self, name: str, *, force: bool) -> None:
        with self._visitor.deed("volume remove", name, lessens=True) as deed:
            deed.volumes()
            await self._inner.remove(name, force=force)

    async def prune(self, filters: Filters) -> Document:
        with self._visitor.deed("volume prune", "", lessens=True) as deed:
            deed.volumes()
            return await self._inner.prune(filters)
