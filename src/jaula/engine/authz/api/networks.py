"""Networks, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations as asking
from jaula.engine.model.filters import Filters

if TYPE_CHECKING:
    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.api_networks import NetworkConnect, NetworkCreate, NetworkDisconnect

Document = dict[str, Any]
Documents = list[Document]


class NetworksApi:
    """Networks: whoever may run containers may make them, and connect what is theirs."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.networks
        self._visitor = visitor

    def list(self, filters: Filters) -> Documents:
        self._visitor.look()
        return self._inner.list(filters)

    def inspect(self, ref: str) -> Document:
        self._visitor.look()
        return self._inner.inspect(ref)

    async def create(self, body: NetworkCreate) -> Document:
        with self._visitor.deed("network create", body.name) as deed:
            deed.judged(asking.of_network(self._inner.whole(body)))
            return await self._inner.create(body)

    async def remove(self, ref: str) -> None:
        with self._visitor.deed("network remove", ref, lessens=True) as deed:
            deed.run()
            await self._inner.remove(ref)

    async def connect(self, ref: str, body: NetworkConnect) -> None:
        with self._visitor.deed("network connect", f"{ref} {body.container}") as deed:
            deed.container(body.container)
            await self._inner.connect(ref, body)

    async def disconnect(self, ref: str, body: NetworkDisconnect) -> None:
        with self._visitor.deed("network disconnect", f"{ref} {body.container}") as deed:
            deed.container(body.container)
            await self._inner.disconnect(ref, body)

    async def prune(self, filters: Filters) -> Document:
        with self._visitor.deed("network prune", "", lessens=True) as deed:
            deed.run()
            return await self._inner.prune(filters)
