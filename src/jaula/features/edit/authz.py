"""Changes of containers, as one caller may make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine import relaxations
from jaula.engine.authz import request_ceilings
from jaula.engine.authz.request_ceilings import Share
from jaula.engine.model.seal import request_seal
from jaula.features.edit import edit_request
from jaula.features.edit.hooks import edits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaula.engine.authz.caller_session import AuditedAction, Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.containers.bounds import Bounds
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.features.edit.edit_request import Edit
    from jaula.spec.api_documents import ContainerEdit

Document = dict[str, Any]


def edits_api(api: EngineApi) -> EditsApi:
    """Return the changes of containers as the caller of a connection may make them."""
    return EditsApi(api.engine, api.session)


class EditsApi:
    """A container may be changed by its owner, and by callers with control of all containers."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._containers = engine.containers
        self._edits = engine.containers.service(edits)
        self._session = session

    def editable(self, ref: str) -> Document:
        self._session.require_container_read(ref)
        return edit_request.document(self._containers.find(ref).record)

    async def edit(self, ref: str, body: ContainerEdit) -> Sequence[str]:
        session = self._session
        with session.begin("container edit", ref) as action:
            container = action.require_control(ref)
            action.reserve_change(container, body)

            def authorize(edit: Edit) -> Bounds:
                action.argv = edit.changes
                for network in body.connect:
                    session.require_network_use(network)
                return self._authorize_edit(action, container, body, edit)

            warnings = await self._edits.edit(container, body, authorize, session.caller.key)
            action.seal = request_seal(container.record)
            return warnings

    def _authorize_edit(
        self, action: AuditedAction, container: Container, body: ContainerEdit, edit: Edit
    ) -> Bounds:
        """Check a decided change as a create with its new members would be checked."""
        session, record = self._session, container.record
        privileges = action.authorize(
            (
                *relaxations.of_edit(edit.body, edit.resolved, edit.mounts),
                *relaxations.of_update(body.update),
            )
        )
        binds = any(request.mount.type == "bind" for request in edit.mounts)
        if binds and not session.is_admin and session.caller.key != record.owner:
            # Such a mount has the rights of the container's owner.
            what = f"mount a directory of the host in container {container.name}"
            raise session.denial(what, "its owner may")
        asked = msgspec.structs.replace(edit.resolved, mounts=edit.mounts, volumes_from=())
        action.reserve(Share.VOLUMES, session.authorize_volumes(asked))
        session.check_ceilings(request_ceilings.of_ports(edit.ports))
        if edit.limits is not None:
            old, pids = record.host_config, session.services.host.pids_limit
            session.check_ceilings(request_ceilings.of_update(old, edit.body.host_config, pids))
        return session.bounds(record.log, privileges, record.engine_socket)
