"""Networks, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations
from jaula.engine.authz.request_ceilings import Share
from jaula.engine.authz.use_case import Right, use_case
from jaula.engine.model.label_filters import Filters
from jaula.engine.networks.networks import Networks

if TYPE_CHECKING:
    from jaula.engine.authz.caller_session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.api_networks import NetworkConnect, NetworkCreate, NetworkDisconnect

Document = dict[str, Any]
Documents = list[Document]


class NetworksApi:
    """Networks may be created by callers that run containers.

    Their owner, and callers with control of all containers, may use and remove them. Disconnecting
    needs the container alone.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.networks
        self._session = session

    list = use_case(Networks.list, Right.READ)
    inspect = use_case(Networks.inspect, Right.READ)

    async def create(self, body: NetworkCreate) -> Document:
        with self._session.begin("network create", body.name) as action:
            action.authorize(relaxations.of_network(self._service.whole(body)))
            owners = ((n.id, n.owner) for n in self._session.services.network_store)
            self._session.check_new_name("network", body.name, owners)
            action.reserve(Share.NETWORKS)
            action.reserve_document(body)
            return await self._service.create(body, self._session.caller.key)

    async def remove(self, ref: str) -> None:
        with self._session.begin("network remove", ref, revokes=True) as action:
            if not action.may_remove(lambda: self._service.inspect(ref)["Labels"]):
                action.require_run()
                self._session.require_network_removal(ref)
            await self._service.remove(ref)

    async def connect(self, ref: str, body: NetworkConnect) -> None:
        with self._session.begin("network connect", f"{ref} {body.container}") as action:
            container = action.require_control(body.container)
            self._session.require_network_use(ref)
            action.reserve_change(container, body)
            await self._service.connect(ref, body)

    async def disconnect(self, ref: str, body: NetworkDisconnect) -> None:
        with self._session.begin("network disconnect", f"{ref} {body.container}") as action:
            action.require_control(body.container)
            await self._service.disconnect(ref, body)

    async def prune(self, filters: Filters) -> Document:
        with self._session.begin("network prune", "", revokes=True) as action:
            if action.may_prune(filters):
                return await self._service.prune(filters)
            action.require_run()
            return await self._service.prune(filters, self._session.controls)
